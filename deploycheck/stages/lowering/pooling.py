"""Pooling as a reduction over strided slices: one for each place of a window."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from deploycheck.stages.lowering.images import Grid, Postponed, everywhere, shifted


def pool(equation: Any, image: jax.Array) -> jax.Array:
    """Return the result of a plain window's reduction over an image ``[n, ..., c]``."""
    known = equation.params
    reduction, neutral = POOLING[equation.primitive.name]
    image = lax.pad(image, jnp.asarray(neutral, image.dtype), [(*pad, 0) for pad in known["padding"]])
    sizes, strides = known["window_dimensions"][1:-1], known["window_strides"][1:-1]
    return functools.reduce(reduction, shifted(image, sizes, strides, [1] * len(sizes), everywhere(len(sizes))))


def pool_postponed(equation: Any, image: Postponed) -> jax.Array:
    """Return the same of an image of which each slice is computed apart, where the windows are a tiling."""
    reduction, _ = POOLING[equation.primitive.name]
    return functools.reduce(reduction, [image.at(grid) for grid in _tiles(equation)])


def is_plain_window(equation: Any) -> bool:
    """Whether a window is for floats, moves over the axes between the first and the last alone, and has no gaps."""
    known, (operand,) = equation.params, equation.invars
    return (
        jnp.issubdtype(operand.aval.dtype, jnp.floating)
        and operand.aval.ndim > 2
        and max(known["base_dilation"]) == max(known["window_dilation"]) == 1
        and known["window_dimensions"][0] == known["window_dimensions"][-1] == 1
        and known["window_strides"][0] == known["window_strides"][-1] == 1
        and tuple(known["padding"][0]) == tuple(known["padding"][-1]) == (0, 0)
    )


def is_tiling(equation: Any) -> bool:
    """Whether the windows have no place in common, and none outside of the image."""
    known = equation.params
    return (
        is_plain_window(equation)
        and tuple(known["window_dimensions"]) == tuple(known["window_strides"])
        and not any(map(sum, known["padding"]))
    )


def _tiles(equation: Any) -> list[Grid]:
    """Return, for each place of a window, where that place is in all windows."""
    sizes = equation.params["window_dimensions"][1:-1]
    counts = equation.outvars[0].aval.shape[1:-1]
    pieces = [
        [slice(at, at + (count - 1) * size + 1, size) for at in range(size)]
        for size, count in zip(sizes, counts, strict=True)
    ]
    return list(itertools.product(*pieces))


def _greater(first: jax.Array, second: jax.Array) -> jax.Array:
    """Return the greater of two, and of equals the first alone has the gradient, as in a reduction of windows."""
    return lax.select((first >= second) | (first != first), first, second)


POOLING: dict[str, tuple[Callable[[jax.Array, jax.Array], jax.Array], float]] = {
    "reduce_window_max": (_greater, -math.inf),
    "reduce_window_sum": (lax.add, 0.0),
}
"""How two places of a window become one, and what a place outside of the image counts as."""
