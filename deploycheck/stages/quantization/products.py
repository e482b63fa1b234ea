"""Products of an activation and a quantised weight, in the forms that ``benchmarks/quantize.py`` finds fast."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import qwix
from jax import lax
from jax.core import max_dim

from deploycheck.stages.quantization.axes import Axes, summed

Pairs = tuple[Axes, Axes]
"""Axes of the activation and those of the weight that they are matched with, in the same order."""
Product = Callable[[jax.Array, Any, Pairs, Pairs], "jax.Array | None"]
"""``product(activation, weight, along, shared)`` is ``[*shared, *rows, *channels]``; None where it can't be used."""

ToInt8 = Callable[[jax.Array, Sequence[int]], Any]
"""``quantize(activation, kept)`` is a ``qwix.QArray`` with a scale for each index of the axes ``kept``."""

INTEGERS = (jnp.int8, jnp.int4)
DIGITS = 3
"""Digits of 8 bits hold the 24 bits that a float32 has."""
HIGHEST = 126.5
"""The highest value of a digit before it is rounded; a little below 127.5, because the scale is rounded too."""
LEAST = 2.0**-100
"""A row without a larger number is zeros: the scale of its last digit would not be a normal number."""
FEW_ROWS = 32
"""For more rows than this, three products in int8 take longer than making the weight float."""


def multiply(equation: Any, activation: jax.Array, weight: Any, side: int, product: Product) -> jax.Array | None:
    """Return the result of a ``dot_general`` whose operand ``side`` is the weight (a ``qwix.QArray``).

    None where the weight has to be float for it.
    """
    contracted, batch = equation.params["dimension_numbers"]
    along, shared = (contracted[1 - side], contracted[side]), (batch[1 - side], batch[side])
    if weight.qvalue.dtype not in INTEGERS:
        return None
    if moves_scales(equation, weight, side):
        if any(size > 1 for axis, size in enumerate(weight.scale.shape) if axis not in along[1]):
            return None
        activation = activation * moved_scales(activation, weight, along)
        weight = qwix.QArray(weight.qvalue, jnp.ones((1,) * weight.scale.ndim, weight.scale.dtype))
    whole = qwix.QArray(weight.qvalue.astype(jnp.int8), weight.scale)
    wide = activation.astype(jnp.promote_types(activation.dtype, jnp.float32))
    result = product(wide, whole, along, shared)
    return result if result is None or side == 1 else _swap(result, len(shared[0]), activation.ndim - len(along[0]))


def moves_scales(equation: Any, weight: Any, side: int) -> bool:
    """Whether the scales of operand ``side`` differ along what is summed over, other than in groups."""
    return any(1 < weight.scale.shape[axis] == weight.shape[axis] for axis in summed(equation, side))


def moved_scales(activation: jax.Array, weight: Any, along: Pairs) -> jax.Array:
    """Return the scales of a weight as factors of an activation, where they differ only along what is summed over.

    They do where they serve another product of the same weight. The sum of the products stays the same.
    """
    scale = weight.scale
    pairs = sorted(zip(*along, strict=True))
    shape = [1] * activation.ndim
    for own, other in pairs:
        shape[own] = scale.shape[other]
    order = [other for _, other in pairs]
    turned: jax.Array = scale.transpose([*order, *(axis for axis in range(scale.ndim) if axis not in order)])
    return turned.reshape(shape)


def _swap(product: jax.Array, shared: int, rows: int) -> jax.Array:
    """Return a product ``[*shared, *rows, *channels]``, of ``rows`` axes with the shared, in the other order."""
    axes = range(product.ndim)
    return product.transpose([*axes[:shared], *axes[rows:], *axes[shared:rows]])


def quantize_as_it_arrives(activation: jax.Array, kept: Sequence[int]) -> Any:
    """Return an activation in int8, with a scale for each index of the axes ``kept``."""
    return qwix.quantize(activation, jnp.int8, channelwise_axes=kept)


def quantize_by(scale: jax.Array) -> ToInt8:
    """Return what quantises an activation by one scale that is known before it arrives."""

    def quantize(activation: jax.Array, kept: Sequence[int]) -> Any:
        codes = jnp.round(activation / scale).clip(-127, 127).astype(jnp.int8)
        shape = [size if axis in kept else 1 for axis, size in enumerate(activation.shape)]
        return qwix.QArray(codes, jnp.broadcast_to(scale.astype(activation.dtype), shape))

    return quantize


def int8_product(quantize: ToInt8) -> Product:
    """Return the product of an activation that is quantised first, in int8."""

    def product(activation: jax.Array, weight: Any, along: Pairs, shared: Pairs) -> jax.Array:
        kept = [axis for axis in range(activation.ndim) if axis not in along[0]]
        rows = [axis for axis in kept if axis not in shared[0]]
        quantized = quantize(activation, kept)
        if not rows or _known(activation, rows) > 1:
            return _dot(quantized, weight, along, shared)
        # XLA on CPU has no fast int8 product for one row. The barrier keeps it from taking the second one away.
        count = activation.shape[rows[0]]
        widths = [(0, max_dim(count, 2) - count if axis == rows[0] else 0) for axis in range(activation.ndim)]
        padded = lax.optimization_barrier(jax.tree.map(lambda array: jnp.pad(array, widths), quantized))
        return lax.slice_in_dim(_dot(padded, weight, along, shared), 0, count, axis=len(shared[0]))

    return product


def exact_product(activation: jax.Array, weight: Any, along: Pairs, shared: Pairs) -> jax.Array | None:
    """Multiply by the codes without rounding the activation to int8; on CPU, and where rows are few, in int8 even so.

    A row is written as three digits of about 8 bits, which hold all that a float32 of the row's size does, and they
    are multiplied as three rows of int8. The error is at most 2^-22 of the row's largest number times the sum of the
    weights' magnitudes. To make the weight float would take longer than the product itself.
    """
    kept = [axis for axis in range(activation.ndim) if axis not in along[0]]
    grouped = any(weight.scale.shape[axis] > 1 for axis in along[1])
    if grouped or activation.dtype != jnp.float32 or _known(activation, kept) > FEW_ROWS:
        return None

    def in_int8(activation: jax.Array, weight: Any) -> jax.Array:
        digits = _digits(activation, kept)
        moved = [tuple(axis + 1 for axis in pair[0]) for pair in (along, shared)]
        product = _dot(digits, weight, (moved[0], along[1]), (moved[1], shared[1]))
        return product.sum(axis=len(shared[0]))

    def in_float(activation: jax.Array, weight: Any) -> jax.Array:
        return lax.dot_general(activation, qwix.dequantize(weight), (along, shared))

    def on_cpu(activation: jax.Array, weight: Any) -> jax.Array:
        # In an export the batch is of any size. XLA keeps one branch once the size is known.
        rows: Any = math.prod(activation.shape[axis] for axis in kept)
        if isinstance(rows, int):
            return in_int8(activation, weight)
        product: jax.Array = lax.cond(jnp.asarray(rows) <= FEW_ROWS, in_int8, in_float, activation, weight)
        return product

    chosen: jax.Array = lax.platform_dependent(activation, weight, cpu=on_cpu, default=in_float)
    return chosen


def _digits(activation: jax.Array, kept: Sequence[int]) -> Any:
    """Return an activation as a sum of ``DIGITS`` int8 arrays with scales, along a new first axis.

    Each rounds what the digits before it left over, which is at most half of their scale. The scales have 16 bits, so
    that their products with a digit, and what is left over, are exact in float32.
    """
    largest = jnp.abs(activation).max(axis=[it for it in range(activation.ndim) if it not in kept], keepdims=True)
    scale = jnp.where(largest > LEAST, largest, 1) / HIGHEST
    codes, scales, rest = [], [], activation
    for _ in range(DIGITS):
        scale = lax.reduce_precision(scale, exponent_bits=8, mantissa_bits=15)
        codes.append(jnp.round(rest / scale).astype(jnp.int8))
        scales.append(scale)
        rest, scale = rest - codes[-1] * scale, scale / (2 * HIGHEST)
    return qwix.QArray(jnp.stack(codes), jnp.stack(scales))


def _known(activation: jax.Array, axes: Sequence[int]) -> int:
    """Return how many rows there are at least: a batch of any size counts as one."""
    return math.prod(size for axis in axes if isinstance(size := activation.shape[axis], int))


def _dot(activation: Any, weight: Any, along: Pairs, shared: Pairs) -> jax.Array:
    product: jax.Array = qwix.dot_general(activation, weight, (along, shared))
    return product


def convolves_in_int8(equation: Any, weight: Any) -> bool:
    """Whether a convolution can be in int8: its weight has one scale for each output channel, or one for all."""
    return weight.qvalue.dtype in INTEGERS and all(weight.scale.shape[axis] == 1 for axis in summed(equation, 1))


def convolve(equation: Any, activation: jax.Array, weight: Any, quantize: ToInt8) -> jax.Array | None:
    """Return a convolution in int8, where ``quantize`` may scale each example; None where it can't be."""
    known = equation.params
    if not convolves_in_int8(equation, weight):
        return None
    wide = activation.astype(jnp.promote_types(activation.dtype, jnp.float32))
    convolution: jax.Array = qwix.conv_general_dilated(
        quantize(wide, [known["dimension_numbers"].lhs_spec[0]]),
        qwix.QArray(weight.qvalue.astype(jnp.int8), weight.scale),
        known["window_strides"],
        known["padding"],
        lhs_dilation=known["lhs_dilation"],
        rhs_dilation=known["rhs_dilation"],
        dimension_numbers=known["dimension_numbers"],
        feature_group_count=known["feature_group_count"],
        batch_group_count=known["batch_group_count"],
    )
    return convolution
