"""The arithmetic of pruning without a change of shape: which weights of a model's kernels become zero.

The kernels (``stages/kernels.py``) are pruned; biases, normalisation and embeddings are left alone. A mask has the
shape of its kernel and is true where a weight is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from deploycheck.errors import DeploycheckError
from deploycheck.stages.kernels import find_kernels
from deploycheck.stages.model import Model, PyTree, flatten

Kernels = Mapping[str, jax.Array]
Masks = Mapping[str, jax.Array]
Score = Callable[[Kernels], Kernels]
"""Gives each weight of each kernel a number; those with the lowest are pruned, whichever kernel they are of."""

RISE = 0.75
"""The share of a gradual pruning's steps in which the sparsity rises; in the others the kept weights adapt."""
UPDATES = 100
"""How often the masks of a gradual pruning change, at most: sorting all weights at each step would cost more than
training."""
NAMED = 4
"""How many kernels a remark names."""


def magnitude(kernels: Kernels) -> Kernels:
    """Score each weight by its magnitude, so that all kernels compete.

    Han et al., Learning both Weights and Connections for Efficient Neural Networks, 2015.
    """
    return {name: jnp.abs(kernel) for name, kernel in kernels.items()}


def magnitude_by_layer(kernels: Kernels) -> Kernels:
    """Score each weight by the share of its own kernel that is smaller, so that each kernel becomes as sparse."""
    return {name: -(_rank(kernel) - 0.5) / kernel.size for name, kernel in kernels.items()}


def energy(kernels: Kernels) -> Kernels:
    """Let each kernel keep a number of its largest weights that is proportional to its energy, Σw² / max w².

    The energy is between 1 and the number of weights: it says how many weights as large as the largest would have
    the same sum of squares. A kernel with few large weights keeps few, one with many of equal size keeps many,
    whatever the scale of either.
    """

    def score(kernel: jax.Array) -> jax.Array:
        squares = jnp.square(kernel)
        return -_rank(kernel) * squares.max() / jnp.where(squares.any(), squares.sum(), 1)

    return {name: score(kernel) for name, kernel in kernels.items()}


def _rank(kernel: jax.Array) -> jax.Array:
    """Return each weight's rank among those of its kernel: 1 for the largest."""
    order = jnp.argsort(-jnp.abs(kernel).reshape(-1), stable=True)
    ranks = jnp.zeros(kernel.size).at[order].set(jnp.arange(1.0, kernel.size + 1))
    return ranks.reshape(kernel.shape)


def choose_kernels(model: Model, keep: Collection[str]) -> dict[str, int | None]:
    """Return the kernels to prune and the axis that each is summed over; those that match ``keep`` are left out.

    Raises ``DeploycheckError`` for a pattern that matches none, and where no kernel is left.
    """
    found = find_kernels(model)
    for pattern in keep:
        if not any(fnmatchcase(name, pattern) for name in found):
            raise DeploycheckError(
                f"`keep: {pattern}` matches none of the kernels", hint=f"they are: {', '.join(found) or 'none'}"
            )
    chosen = {name: axis for name, axis in found.items() if not any(fnmatchcase(name, it) for it in keep)}
    if not chosen:
        raise DeploycheckError(
            "the model has nothing to prune",
            hint="pruned are floating weights with two or more axes that are operands of matrix products or "
            "convolutions, and that `keep` doesn't match; prune before you quantise",
        )
    return chosen


def kernels_of(params: PyTree, names: Collection[str]) -> dict[str, jax.Array]:
    """Return the params of these names."""
    leaves = flatten(params)[0]
    return {name: leaves[name] for name in names}


def lowest_masks(kernels: Kernels, score: Score, sparsity: float | jax.Array) -> Masks:
    """Return masks that prune the share ``sparsity`` (0..1) of all weights: those with the lowest scores."""
    scores = score(kernels)
    order = jnp.argsort(jnp.concatenate([scores[name].reshape(-1) for name in kernels]), stable=True)
    pruned = jnp.round(sparsity * order.size)
    mask = jnp.zeros(order.size, bool).at[order].set(jnp.arange(order.size) >= pruned)
    masks, start = {}, 0
    for name, kernel in kernels.items():
        masks[name] = mask[start : start + kernel.size].reshape(kernel.shape)
        start += kernel.size
    return masks


def pattern_masks(kernels: Kernels, summed: Mapping[str, int | None], kept: int, of: int) -> Masks:
    """Return masks that keep the largest ``kept`` of each ``of`` consecutive weights along the summed axis.

    A kernel whose summed axis can't be divided by ``of`` is left out. Mishra et al., Accelerating Sparse Deep Neural
    Networks, 2021. Raises ``DeploycheckError`` where all kernels are left out.
    """

    def mask(kernel: jax.Array, axis: int) -> jax.Array:
        last = jnp.moveaxis(kernel, axis, -1)
        groups = jnp.abs(last).reshape(*last.shape[:-1], -1, of)
        ranks = jnp.argsort(jnp.argsort(-groups, axis=-1, stable=True), axis=-1)
        return jnp.moveaxis((ranks < kept).reshape(last.shape), -1, axis)

    fitting = {name: axis for name, axis in summed.items() if axis is not None and kernels[name].shape[axis] % of == 0}
    if not fitting:
        raise DeploycheckError(
            f"no kernel has a summed axis that can be divided by {of}",
            hint=", ".join(f"{name} is {list(kernel.shape)}" for name, kernel in kernels.items()),
        )
    return {name: mask(kernels[name], axis) for name, axis in fitting.items()}


def with_masks(model: Model, masks: Masks) -> Model:
    """Return the model with zeros where the masks are false.

    Raises ``DeploycheckError`` where a kernel would have nothing else, because its layer would ignore its input.
    """
    empty = [name for name, mask in masks.items() if not mask.any()]
    if empty:
        raise DeploycheckError(
            f"nothing would be left of {', '.join(empty)}",
            hint="lower the sparsity, write `scope: layer`, or leave it alone with `keep: [...]`",
        )
    leaves, restore = flatten(model.params)
    pruned = {name: jnp.where(mask, leaves[name], 0) for name, mask in masks.items()}
    return replace(model, params=restore({**leaves, **pruned}))


def hold(masks: Masks) -> optax.GradientTransformation:
    """Return the constraint that leaves pruned weights as they are: at zero."""

    def update(updates: PyTree, params: PyTree | None) -> PyTree:
        del params
        leaves, restore = flatten(updates)
        return restore({**leaves, **{name: jnp.where(mask, leaves[name], 0) for name, mask in masks.items()}})

    return optax.stateless(update)


class Gradual(NamedTuple):
    """The state of a gradual pruning: how many steps there have been, and the masks of the last."""

    step: jax.Array
    masks: Masks


def prune_gradually(kernels: Kernels, score: Score, sparsity: float, steps: int) -> optax.GradientTransformation:
    """Return the constraint that prunes more and more of the kernels in a training of ``steps`` steps.

    The sparsity rises from that of ``kernels`` to ``sparsity`` as 1 - (1 - t)³, over three quarters of the steps; what
    was pruned stays so. Zhu and Gupta, To prune, or not to prune, 2017.
    """
    begin = 1 - sum(jnp.count_nonzero(it) for it in kernels.values()) / sum(it.size for it in kernels.values())
    last = max(1, round(RISE * steps))
    every = max(1, last // UPDATES)

    def init(params: PyTree) -> Gradual:
        return Gradual(
            jnp.zeros((), jnp.int32), {name: leaf != 0 for name, leaf in kernels_of(params, kernels).items()}
        )

    def update(updates: PyTree, state: Gradual, params: PyTree | None = None) -> tuple[PyTree, Gradual]:
        leaves, restore = flatten(updates)
        before = kernels_of(params, kernels)
        moved = {name: jnp.where(mask, before[name] + leaves[name], 0) for name, mask in state.masks.items()}
        step = state.step + 1
        wanted = sparsity + (begin - sparsity) * (1 - step / last) ** 3
        due = (step == last) | ((step < last) & (step % every == 0))
        masks = lax.cond(due, lambda: lowest_masks(moved, score, wanted), lambda: state.masks)
        masked = {name: jnp.where(mask, leaves[name], -before[name]) for name, mask in masks.items()}
        return restore({**leaves, **masked}), Gradual(step, masks)

    return optax.GradientTransformation(init, update)


def describe_zeros(model: Model) -> str:
    """Return how many of the weights of a model's kernels are zero, in all and in the largest."""
    kernels = kernels_of(model.params, find_kernels(model))
    zeros = {name: kernel.size - int(jnp.count_nonzero(kernel)) for name, kernel in kernels.items()}
    total = sum(kernel.size for kernel in kernels.values())
    largest = sorted(kernels, key=lambda name: -kernels[name].size)
    named = ", ".join(f"{name} ({zeros[name] / kernels[name].size:.0%})" for name in largest[:NAMED])
    more = f" and {len(largest) - NAMED} more" if len(largest) > NAMED else ""
    return f"{sum(zeros.values()):,} of {total:,} weights of kernels are zero: {named}{more}"


def count_parameters(model: Model) -> int:
    """Return how many numbers a model's params have."""
    return sum(int(leaf.size) for leaf in flatten(model.params)[0].values())
