"""The dead-zone quantiser: weights as integers of bounded magnitude, of which small ones are zero.

With a scale s, a threshold d and a range Q, the code of a weight w is::

    0                                      where |w| < d
    sign(w) * min(round(|w| / s), Q - 1)   elsewhere

and the model computes with ``s * code``. docs/quantization.md derives it. Hwang and Sung, Fixed-Point Feedforward Deep
Neural Network Design Using Weights +1, 0, and -1, 2014.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from deploycheck.errors import DeploycheckError
from deploycheck.stages.model import Model, PyTree, flatten
from deploycheck.stages.network import Inputs, Outputs
from deploycheck.stages.quantized_share import SCALE, VALUE

INTEGERS: Mapping[str, int] = {"int4": 7, "int8": 127, "int16": 32767}
"""What codes are stored as, and the largest that it holds."""
SCALES, SCALES_PER_OCTAVE = 256, 32
"""How many scales are tried for the least error: from the one that fits the largest weight down to 1/250 of it."""


def quantize_with_dead_zone(model: Model, *, levels: int, threshold: float | None) -> Model:
    """Return the model with every array of two axes or more, each with a scale of its own, as codes below ``levels``.

    ``threshold`` is a share (0..1) of an array's largest magnitude, which gets the largest code. Where it is None, each
    array gets the scale and the threshold of the least squared error. Its params become flat. Raises
    ``DeploycheckError`` for a model without such an array, and for one that is quantised already.
    """
    largest = levels - 1
    params: dict[str, Any] = dict(flatten(model.params)[0])
    for name in _weights(params):
        array = params.pop(name)
        scale = scale_of_least_error(array, largest) if threshold is None else scale_to_fit(array, largest)
        below = 0.0 if threshold is None else threshold * jnp.abs(array).max()
        params[name + VALUE] = find_codes(array, scale, below, largest).astype(integer_for(largest))
        params[name + SCALE] = scale
    return replace(_with_codes(model), params=params)


def dead_zone_form(form: Model, *, levels: int) -> Model:
    """Return the form of what ``quantize_with_dead_zone`` makes of a model with this form."""
    params: dict[str, Any] = dict(flatten(form.params)[0])
    for name in _weights(params):
        array = params.pop(name)
        params[name + VALUE] = jax.ShapeDtypeStruct(array.shape, integer_for(levels - 1))
        params[name + SCALE] = jax.ShapeDtypeStruct((1,) * array.ndim, array.dtype)
    return replace(_with_codes(form), params=params)


def integer_for(largest: int) -> Any:
    """Return the dtype that codes of this magnitude are stored as."""
    return next(jnp.dtype(name) for name, most in INTEGERS.items() if largest <= most)


@functools.partial(jax.jit, static_argnames="largest")
def find_codes(weights: jax.Array, scale: jax.Array, threshold: jax.Array | float, largest: int) -> jax.Array:
    """Return the codes as whole float32 numbers: 0 below the threshold, else the nearest of magnitude ``largest``."""
    wide = weights.astype(jnp.float32)
    nearest = jnp.clip(jnp.round(wide / scale.astype(jnp.float32)), -largest, largest)
    return jnp.where(jnp.abs(wide) < threshold, 0.0, nearest)


@functools.partial(jax.jit, static_argnames="largest")
def scale_to_fit(weights: jax.Array, largest: int) -> jax.Array:
    """Return the scale at which the largest magnitude has the largest code: one number, with the axes of weights."""
    scale = jnp.abs(weights).max(keepdims=True) / largest
    return jnp.where(scale > 0, scale, 1).astype(weights.dtype)


@functools.partial(jax.jit, static_argnames="largest")
def scale_of_least_error(weights: jax.Array, largest: int) -> jax.Array:
    """Return the scale at which rounding to the nearest code has the least squared error, of those that are tried.

    A smaller scale rounds better, and cuts the largest magnitudes off. The threshold that goes with it is half of
    it: what rounds to zero.
    """
    wide = weights.astype(jnp.float32)
    shares = 2.0 ** (-jnp.arange(SCALES) / SCALES_PER_OCTAVE)
    scales = jax.vmap(jnp.multiply, (0, None))(shares, scale_to_fit(wide, largest)).astype(weights.dtype)

    def squared_error(scale: jax.Array) -> jax.Array:
        restored = scale.astype(jnp.float32) * find_codes(wide, scale, 0.0, largest)
        return jnp.square(restored - wide).sum()

    return scales[jax.lax.map(squared_error, scales).argmin()]


def _weights(params: Mapping[str, Any]) -> list[str]:
    """Return the names of the arrays that are quantised."""
    done = [name for name in params if name.endswith(VALUE)]
    if done:
        what = f"{done[0].removesuffix(VALUE)} is quantised already"
        raise DeploycheckError(what, hint="make this variant `from` one that is not quantised")
    found = [name for name, it in params.items() if len(it.shape) > 1 and jnp.issubdtype(it.dtype, jnp.floating)]
    if not found:
        shown = ", ".join(f"{name} {list(it.shape)}" for name, it in list(params.items())[:4]) or "none"
        raise DeploycheckError(f"no weights have two axes or more, so none would be quantised; there are: {shown}")
    return found


def _with_codes(model: Model) -> Model:
    """Return the model as a function of flat params with codes; its own params stay as they are."""
    leaves, restore = flatten(model.params)
    dtypes = {name: leaf.dtype for name, leaf in leaves.items()}

    def apply(params: PyTree, state: PyTree, inputs: Inputs) -> Outputs:
        whole = {
            name: params[name]
            if name in params
            else (params[name + VALUE].astype(jnp.float32) * params[name + SCALE]).astype(dtype)
            for name, dtype in dtypes.items()
        }
        return model.apply(restore(whole), state, inputs)

    def train(params: PyTree, state: PyTree, inputs: Inputs, key: jax.Array) -> tuple[Outputs, PyTree]:
        del params, state, inputs, key
        raise DeploycheckError("a model with quantised weights can't be trained", hint="train before you quantise")

    return replace(model, apply=apply, train=train)
