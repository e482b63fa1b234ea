"""The arithmetic of pruning without a change of shape: which weights of a model's kernels become zero.

The kernels (``stages/kernels.py``) are pruned; biases, normalisation and embeddings are left alone. A mask has the
shape of its kernel and is true where a weight is kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from deploycheck.errors import DeploycheckError
from deploycheck.stages.kernels import find_kernels
from deploycheck.stages.model import Model, PyTree, flatten

Kernels = Mapping[str, jax.Array]
Masks = Mapping[str, jax.Array]
Criterion = Callable[[Kernels, "float | jax.Array"], Masks]
"""``criterion(kernels, sparsity)`` gives the masks that prune the share ``sparsity`` (0..1) of all weights."""

RISE = 0.75
"""The share of a gradual pruning's steps in which the sparsity rises; in the others the kept weights adapt."""
UPDATES = 100
"""How often the masks of a gradual pruning change, at most: comparing all weights takes longer than a step."""
NAMED = 4
"""How many kernels a remark names."""


def magnitude(kernels: Kernels, sparsity: float | jax.Array) -> Masks:
    """Keep the largest of all weights, whichever kernel they are of.

    Han et al., Learning both Weights and Connections for Efficient Neural Networks, 2015.
    """
    every = jnp.concatenate([kernel.reshape(-1) for kernel in kernels.values()])
    mask = keep_largest(every, jnp.round((1 - sparsity) * every.size))
    bounds = itertools.accumulate((kernel.size for kernel in kernels.values()), initial=0)
    parts = zip(kernels.items(), itertools.pairwise(bounds), strict=True)
    return {name: mask[start:end].reshape(kernel.shape) for (name, kernel), (start, end) in parts}


def magnitude_by_layer(kernels: Kernels, sparsity: float | jax.Array) -> Masks:
    """Keep the same share of each kernel, the largest of its weights."""
    return {name: keep_largest(kernel, jnp.round((1 - sparsity) * kernel.size)) for name, kernel in kernels.items()}


def energy(kernels: Kernels, sparsity: float | jax.Array) -> Masks:
    """Let each kernel keep a number of its largest weights that is proportional to its energy, Σw² / max w².

    The energy is between 1 and the number of weights: it says how many weights as large as the largest would have
    the same sum of squares. A kernel with few large weights keeps few, one with many of equal size keeps many,
    whatever the scale of either.
    """
    sizes = jnp.array([float(kernel.size) for kernel in kernels.values()])
    energies = jnp.array([_energy(kernel) for kernel in kernels.values()])
    counts = _shares(energies, sizes, jnp.round((1 - sparsity) * sizes.sum()))
    return {name: keep_largest(kernel, count) for (name, kernel), count in zip(kernels.items(), counts, strict=True)}


def _energy(kernel: jax.Array) -> jax.Array:
    """Return a kernel's energy; that of zeros is 1."""
    squares = jnp.square(kernel.astype(jnp.float32))
    return jnp.where(squares.any(), squares.sum() / squares.max(), 1)


@jax.jit
def _shares(weights: jax.Array, most: jax.Array, total: jax.Array) -> jax.Array:
    """Return whole numbers in proportion to ``weights``, none larger than its own ``most``, whose sum is ``total``."""

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high) / 2
        enough = jnp.minimum(middle * weights, most).sum() >= total
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    high = (most / weights).max()
    factor = lax.fori_loop(0, 40, halve, (jnp.zeros_like(high), high))[0]
    exact = jnp.minimum(factor * weights, most)
    whole = jnp.floor(exact)
    # What rounding down has left goes to those with the largest remainders.
    order = jnp.argsort(jnp.argsort(whole - exact + (whole >= most)))
    shares: jax.Array = whole + (order < total - whole.sum())
    return shares


@jax.jit
def keep_largest(kernel: jax.Array, count: float | jax.Array) -> jax.Array:
    """Return the mask of the ``count`` weights of largest magnitude; of equal ones the first are kept.

    The bits of floats that are not negative have the order of the floats. So the smallest magnitude that is kept is
    found bit by bit, which takes a fraction of the time that sorting takes.
    """
    bits = 8 * kernel.dtype.itemsize
    codes = lax.bitcast_convert_type(jnp.abs(kernel), f"int{bits}").reshape(-1)

    def settle(step: int, least: jax.Array) -> jax.Array:
        higher = least | (jnp.ones_like(least) << (bits - 2 - step))
        return jnp.where((codes >= higher).sum() >= count, higher, least)

    least = lax.fori_loop(0, bits - 1, settle, jnp.zeros((), codes.dtype))
    equal = codes == least
    first = jnp.cumsum(equal) <= count - (codes > least).sum()
    mask: jax.Array = (codes > least) | (equal & first)
    return mask.reshape(kernel.shape)


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

    fitting = pattern_kernels(kernels, summed, of)
    return {name: mask(kernels[name], axis) for name, axis in fitting.items()}


def pattern_kernels(kernels: Mapping[str, Any], summed: Mapping[str, int | None], of: int) -> dict[str, int]:
    """Return the kernels whose summed axis can be divided by ``of``; raise ``DeploycheckError`` where none can."""
    fitting = {name: axis for name, axis in summed.items() if axis is not None and kernels[name].shape[axis] % of == 0}
    if not fitting:
        raise DeploycheckError(
            f"no kernel has a summed axis that can be divided by {of}",
            hint=", ".join(f"{name} is {list(kernel.shape)}" for name, kernel in kernels.items()),
        )
    return fitting


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


def hold_zeros(model: Model) -> optax.GradientTransformation:
    """Return the constraint that leaves the zeros in a model's kernels as they are, whichever method made them.

    A kernel that has nothing but zeros isn't held: it was never pruned, and can still learn.
    """
    kernels = kernels_of(model.params, find_kernels(model))
    masks = {name: kernel != 0 for name, kernel in kernels.items() if kernel.any()}

    def update(updates: PyTree, params: PyTree | None) -> PyTree:
        del params
        leaves, restore = flatten(updates)
        return restore({**leaves, **{name: jnp.where(mask, leaves[name], 0) for name, mask in masks.items()}})

    return optax.stateless(update)


class Gradual(NamedTuple):
    """The state of a gradual pruning: how many steps there have been, and the masks of the last."""

    step: jax.Array
    masks: Masks


def prune_gradually(
    kernels: Kernels, criterion: Criterion, sparsity: float, steps: int
) -> optax.GradientTransformation:
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
        masks = lax.cond(due, lambda: criterion(moved, wanted), lambda: state.masks)
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
