"""The rules by which a traced program is evaluated on quantised weights.

A scale belongs to one index of an axis, to a group of indices, or to all of them: its array has as many indices along
each axis as there are scales, as in ``qwix.QArray``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import jax
import jax.numpy as jnp
import qwix
from jax import lax

from deploycheck.stages.quantization.axes import LOOKUP, PRODUCTS, REARRANGING, looked_up, regroup
from deploycheck.stages.quantization.products import convolve, dynamic_product, exact_product, multiply
from deploycheck.stages.tracing import bind


@dataclass(frozen=True)
class QuantizedWeight:
    """A quantised weight in a program: codes, their scales in float32 or wider, and the dtype that it has there."""

    codes: Any
    scales: Any
    dtype: Any

    @classmethod
    def of(cls, codes: Any, scales: Any) -> QuantizedWeight:
        """Return the weight that is stored as these two arrays."""
        return cls(codes, scales.astype(jnp.promote_types(scales.dtype, jnp.float32)), scales.dtype)

    @property
    def array(self) -> qwix.QArray:
        """The same as qwix has it."""
        return qwix.QArray(self.codes, self.scales)

    @property
    def dequantized(self) -> jax.Array:
        """The numbers that it stands for."""
        return cast("jax.Array", qwix.dequantize(self.array)).astype(self.dtype)

    def spread(self, axes: Collection[int]) -> QuantizedWeight:
        """Return the same with a scale for each index of these axes."""
        scales = self.scales
        for axis in axes:
            scales = jnp.repeat(scales, self.codes.shape[axis] // scales.shape[axis], axis=axis)
        return replace(self, scales=scales)


class QuantizedArithmetic:
    """Rules that evaluate products, convolutions and lookups with a quantised weight; others get it in float."""

    primitives = REARRANGING | PRODUCTS | {LOOKUP}

    def __init__(self, *, activations: bool) -> None:
        self.activations = activations
        self._product = dynamic_product if activations else exact_product

    def plain(self, value: Any) -> Any:
        """Return a weight in float, and any other value as it is."""
        return value.dequantized if isinstance(value, QuantizedWeight) else value

    def unstack(self, value: Any) -> tuple[Any, Callable[[Any], Any]]:
        """Return the codes and scales of each layer, and how they make its weight."""
        if not isinstance(value, QuantizedWeight):
            return value, lambda array: array
        weight = value.spread([0])
        return (weight.codes, weight.scales), lambda parts: replace(weight, codes=parts[0], scales=parts[1])

    def apply(self, equation: Any, operands: Sequence[Any]) -> Any:
        """Evaluate an equation on the codes and scales of its weights, where that can be done."""
        if any(isinstance(operand, QuantizedWeight) for operand in operands):
            rule: _Rule = _RULES.get(equation.primitive.name, self._multiply)
            result = rule(equation, operands)
            if result is not None:
                return result
        return bind(equation, [self.plain(operand) for operand in operands])

    def _multiply(self, equation: Any, operands: Sequence[Any]) -> jax.Array | None:
        sides = [side for side, operand in enumerate(operands) if isinstance(operand, QuantizedWeight)]
        if len(sides) != 1:
            return None
        (side,) = sides
        activation, weight = operands[1 - side], operands[side].array
        if equation.primitive.name == "dot_general":
            product = multiply(equation, activation, weight, side, self._product)
        else:
            product = convolve(equation, activation, weight) if self.activations and side == 1 else None
        return None if product is None else product.astype(equation.outvars[0].aval.dtype)


def _look_up(equation: Any, operands: Sequence[Any]) -> jax.Array | None:
    """Return the rows of a table, dequantised; the codes are read, and not the whole table made float."""
    table, indices = operands
    chosen = looked_up(equation)
    if chosen is None or not isinstance(table, QuantizedWeight):
        return None
    known = equation.params
    table = table.spread(chosen)

    def rows(array: jax.Array, mode: Any) -> jax.Array:
        sizes = tuple(1 if axis in chosen else size for axis, size in enumerate(array.shape))
        return lax.gather(array, indices, known["dimension_numbers"], sizes, mode=mode)

    # An index outside of the table gives NaN in the mode "fill": the scales have it, codes can't.
    codes = rows(table.codes, lax.GatherScatterMode.CLIP)
    return QuantizedWeight(codes, rows(table.scales, known["mode"]), table.dtype).dequantized


def _cast(equation: Any, operands: Sequence[Any]) -> QuantizedWeight | None:
    dtype = equation.params["new_dtype"]
    return replace(operands[0], dtype=dtype) if jnp.issubdtype(dtype, jnp.floating) else None


def _copy(equation: Any, operands: Sequence[Any]) -> QuantizedWeight:
    del equation
    weight: QuantizedWeight = operands[0]
    return weight


def _transpose(equation: Any, operands: Sequence[Any]) -> QuantizedWeight:
    return _moved(operands[0], lambda array: lax.transpose(array, equation.params["permutation"]))


def _squeeze(equation: Any, operands: Sequence[Any]) -> QuantizedWeight:
    return _moved(operands[0], lambda array: lax.squeeze(array, equation.params["dimensions"]))


def _moved(weight: QuantizedWeight, move: Callable[[Any], Any]) -> QuantizedWeight:
    return replace(weight, codes=move(weight.codes), scales=move(weight.scales))


def _broadcast(equation: Any, operands: Sequence[Any]) -> QuantizedWeight:
    weight: QuantizedWeight = operands[0]
    known = equation.params
    shape = [1] * len(known["shape"])
    for axis, to in enumerate(known["broadcast_dimensions"]):
        shape[to] = weight.scales.shape[axis]
    scales = lax.broadcast_in_dim(weight.scales, shape, known["broadcast_dimensions"])
    return replace(weight, codes=bind(equation, [weight.codes]), scales=scales)


def _reshape(equation: Any, operands: Sequence[Any]) -> QuantizedWeight:
    weight: QuantizedWeight = operands[0]
    sizes = equation.params["new_sizes"]
    shape: list[int] = []
    for before, after in regroup(weight.codes.shape, sizes):
        if math.prod(weight.scales.shape[axis] for axis in before) == 1:
            shape += [1] * len(after)
        else:
            weight = weight.spread(before)
            shape += [sizes[axis] for axis in after]
    return replace(weight, codes=lax.reshape(weight.codes, sizes), scales=lax.reshape(weight.scales, shape))


def _slice(equation: Any, operands: Sequence[Any]) -> QuantizedWeight:
    known, before = equation.params, operands[0].codes.shape
    weight = _spread_where_cut(equation, operands[0])
    strides = known["strides"] or (1,) * len(before)
    whole = [weight.scales.shape[axis] < before[axis] for axis in range(len(before))]

    def cut(array: Any, keep: Sequence[bool]) -> Any:
        starts = [0 if it else start for it, start in zip(keep, known["start_indices"], strict=True)]
        ends = [n if it else end for it, n, end in zip(keep, array.shape, known["limit_indices"], strict=True)]
        return lax.slice(array, starts, ends, [1 if it else step for it, step in zip(keep, strides, strict=True)])

    return replace(weight, codes=cut(weight.codes, [False] * len(before)), scales=cut(weight.scales, whole))


def _dynamic_slice(equation: Any, operands: Sequence[Any]) -> QuantizedWeight:
    weight, *starts = operands
    before, sizes = weight.codes.shape, equation.params["slice_sizes"]
    weight = _spread_where_cut(equation, weight)
    kept = [size if size < n else own for size, n, own in zip(sizes, before, weight.scales.shape, strict=True)]
    codes, scales = lax.dynamic_slice(weight.codes, starts, sizes), lax.dynamic_slice(weight.scales, starts, kept)
    return replace(weight, codes=codes, scales=scales)


def _split(equation: Any, operands: Sequence[Any]) -> list[QuantizedWeight]:
    axis, sizes = equation.params["axis"], equation.params["sizes"]
    weight = operands[0].spread([axis])
    codes, scales = lax.split(weight.codes, sizes, axis), lax.split(weight.scales, sizes, axis)
    return [replace(weight, codes=it, scales=scale) for it, scale in zip(codes, scales, strict=True)]


def _spread_where_cut(equation: Any, weight: QuantizedWeight) -> QuantizedWeight:
    before, after = weight.codes.shape, equation.outvars[0].aval.shape
    return weight.spread([axis for axis, size in enumerate(before) if size != after[axis]])


def _concatenate(equation: Any, operands: Sequence[Any]) -> QuantizedWeight | None:
    if not all(isinstance(operand, QuantizedWeight) for operand in operands):
        return None
    dimension = equation.params["dimension"]
    differing = [axis for axis in range(operands[0].codes.ndim) if len({it.scales.shape[axis] for it in operands}) > 1]
    parts = [operand.spread({dimension, *differing}) for operand in operands]
    return QuantizedWeight(
        lax.concatenate([part.codes for part in parts], dimension),
        lax.concatenate([part.scales for part in parts], dimension),
        parts[0].dtype,
    )


_Rule = Callable[[Any, Sequence[Any]], Any]
_RULES: dict[str, _Rule] = {
    LOOKUP: _look_up,
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "convert_element_type": _cast,
    "copy": _copy,
    "copy_p": _copy,
    "dynamic_slice": _dynamic_slice,
    "reshape": _reshape,
    "slice": _slice,
    "split": _split,
    "squeeze": _squeeze,
    "transpose": _transpose,
}
"""What each of these primitives makes of a quantised operand; None where it needs the weight in float."""
