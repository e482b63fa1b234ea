"""The rules by which a traced program is evaluated on quantised weights.

A scale belongs to one index of an axis, to a group of indices, or to all of them: its array has as many indices along
each axis as there are scales, as in ``qwix.QArray``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import jax
import jax.numpy as jnp
import qwix
from jax import lax

from deploycheck.stages.quantization.axes import LOOKUP, PRODUCTS, REARRANGING, looked_up, regroup
from deploycheck.stages.quantization.products import (
    ToInt8,
    convolve,
    exact_product,
    int8_product,
    moves_scales,
    multiply,
    quantize_as_it_arrives,
    quantize_by,
)
from deploycheck.stages.tracing import bind


@dataclass(frozen=True)
class QuantizedWeight:
    """A quantised weight in a program: codes, their scales in float32 or wider, and the dtype that it has there.

    ``inputs`` belongs to what it is multiplied with, and has one number for each layer: the scale of the activation,
    where that is calibrated.
    """

    codes: Any
    scales: Any
    dtype: Any
    inputs: Any = None

    @classmethod
    def of(cls, codes: Any, scales: Any, inputs: Any = None) -> QuantizedWeight:
        """Return the weight that is stored as these arrays."""
        return cls(codes, scales.astype(jnp.promote_types(scales.dtype, jnp.float32)), scales.dtype, inputs)

    @property
    def array(self) -> qwix.QArray:
        """The same as qwix has it."""
        return qwix.QArray(self.codes, self.scales)

    @property
    def dequantized(self) -> jax.Array:
        """The numbers that it stands for."""
        return cast("jax.Array", qwix.dequantize(self.array)).astype(self.dtype)

    def moved(self, codes: Any, move: Callable[[Any], Any]) -> QuantizedWeight:
        """Return the weight with other codes, and what belongs to them moved in the same way."""
        inputs = None if self.inputs is None else move(self.inputs)
        return replace(self, codes=codes, scales=move(self.scales), inputs=inputs)

    def spread(self, axes: Collection[int]) -> QuantizedWeight:
        """Return the same with a scale for each index of these axes."""
        shape = self.codes.shape

        def repeat(array: Any) -> Any:
            for axis in axes:
                array = jnp.repeat(array, shape[axis] // array.shape[axis], axis=axis)
            return array

        return self.moved(self.codes, repeat)


Watch = Callable[[Any, jax.Array], None]
"""``watch(inputs, activation)`` is called with every activation that meets a weight with these ``inputs``."""


class QuantizedArithmetic:
    """Rules that evaluate products, convolutions and lookups with a quantised weight; others get it in float."""

    primitives = REARRANGING | PRODUCTS | {LOOKUP}

    def __init__(self, *, activations: bool, watch: Watch | None = None) -> None:
        self._activations = activations
        self._watch = watch

    def plain(self, value: Any) -> Any:
        """Return a weight in float, and any other value as it is."""
        return value.dequantized if isinstance(value, QuantizedWeight) else value

    def unstack(self, value: Any) -> tuple[Any, Callable[[Any], Any]]:
        """Return the arrays of each layer, and how they make its weight."""
        if not isinstance(value, QuantizedWeight):
            return value, lambda array: array
        weight = value.spread([0])
        layers = (weight.codes, weight.scales, weight.inputs)
        return layers, lambda parts: QuantizedWeight(parts[0], parts[1], weight.dtype, parts[2])

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
        activation, weight = operands[1 - side], operands[side]
        if self._watch and is_calibrated(equation, weight, side):
            self._watch(weight.inputs, activation)
        quantize = activation_quantizer(equation, weight, side)
        if equation.primitive.name == "dot_general":
            product = int8_product(quantize) if self._activations else exact_product
            result = multiply(equation, activation, weight.array, side, product)
        else:
            within = self._activations and side == 1
            result = convolve(equation, activation, weight.array, quantize) if within else None
        return None if result is None else result.astype(equation.outvars[0].aval.dtype)


def is_calibrated(equation: Any, weight: QuantizedWeight, side: int) -> bool:
    """Whether the scale of the activation that meets operand ``side``, a weight, is known before it arrives."""
    return weight.inputs is not None and not moves_scales(equation, weight.array, side)


def activation_quantizer(equation: Any, weight: QuantizedWeight, side: int) -> ToInt8:
    """Return what quantises the activation that meets operand ``side``, a weight."""
    return quantize_by(weight.inputs.max()) if is_calibrated(equation, weight, side) else quantize_as_it_arrives


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
    return _everywhere(operands[0], lambda array: lax.transpose(array, equation.params["permutation"]))


def _squeeze(equation: Any, operands: Sequence[Any]) -> QuantizedWeight:
    return _everywhere(operands[0], lambda array: lax.squeeze(array, equation.params["dimensions"]))


def _everywhere(weight: QuantizedWeight, move: Callable[[Any], Any]) -> QuantizedWeight:
    return weight.moved(move(weight.codes), move)


def _broadcast(equation: Any, operands: Sequence[Any]) -> QuantizedWeight:
    known = equation.params

    def broadcast(array: Any) -> Any:
        shape = [1] * len(known["shape"])
        for axis, to in enumerate(known["broadcast_dimensions"]):
            shape[to] = array.shape[axis]
        return lax.broadcast_in_dim(array, shape, known["broadcast_dimensions"])

    weight: QuantizedWeight = operands[0]
    return weight.moved(bind(equation, [weight.codes]), broadcast)


def _reshape(equation: Any, operands: Sequence[Any]) -> QuantizedWeight:
    weight: QuantizedWeight = operands[0]
    before, sizes = weight.codes.shape, equation.params["new_sizes"]

    def reshape(array: Any) -> Any:
        shape: list[int] = []
        for old, new in regroup(before, sizes):
            one = math.prod(array.shape[axis] for axis in old) == 1
            for axis in () if one else old:
                array = jnp.repeat(array, before[axis] // array.shape[axis], axis=axis)
            shape += [1 if one else sizes[axis] for axis in new]
        return lax.reshape(array, shape)

    return weight.moved(lax.reshape(weight.codes, sizes), reshape)


def _slice(equation: Any, operands: Sequence[Any]) -> QuantizedWeight:
    known = equation.params
    weight = _spread_where_cut(equation, operands[0])
    before = weight.codes.shape
    strides = known["strides"] or (1,) * len(before)

    def cut(array: Any) -> Any:
        pieces = zip(known["start_indices"], known["limit_indices"], strides, strict=True)
        places = [
            it if array.shape[axis] == before[axis] else (0, array.shape[axis], 1) for axis, it in enumerate(pieces)
        ]
        return lax.slice(array, *zip(*places, strict=True))

    return _everywhere(weight, cut)


def _dynamic_slice(equation: Any, operands: Sequence[Any]) -> QuantizedWeight:
    weight = _spread_where_cut(equation, operands[0])
    before, sizes = weight.codes.shape, equation.params["slice_sizes"]

    def cut(array: Any) -> Any:
        kept = [size if size < n else own for size, n, own in zip(sizes, before, array.shape, strict=True)]
        return lax.dynamic_slice(array, operands[1:], kept)

    return _everywhere(weight, cut)


def _split(equation: Any, operands: Sequence[Any]) -> list[QuantizedWeight]:
    axis, sizes = equation.params["axis"], equation.params["sizes"]
    weight = operands[0].spread([axis])
    ends = itertools.accumulate(sizes)

    def part(start: int, end: int) -> QuantizedWeight:
        return _everywhere(weight, lambda array: lax.slice_in_dim(array, start, end, axis=axis))

    return [part(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def _spread_where_cut(equation: Any, weight: QuantizedWeight) -> QuantizedWeight:
    before, after = weight.codes.shape, equation.outvars[0].aval.shape
    return weight.spread([axis for axis, size in enumerate(before) if size != after[axis]])


def _concatenate(equation: Any, operands: Sequence[Any]) -> QuantizedWeight | None:
    if not all(isinstance(operand, QuantizedWeight) for operand in operands):
        return None
    dimension, axes = equation.params["dimension"], range(operands[0].codes.ndim)
    names = ["scales"] if any(operand.inputs is None for operand in operands) else ["scales", "inputs"]
    shapes = [[getattr(operand, name).shape for operand in operands] for name in names]
    differing = {axis for axis in axes if any(len({shape[axis] for shape in those}) > 1 for those in shapes)}
    parts = [operand.spread({dimension, *differing}) for operand in operands]
    codes, scales = (lax.concatenate([getattr(it, part) for it in parts], dimension) for part in ("codes", "scales"))
    inputs = lax.concatenate([part.inputs for part in parts], dimension) if "inputs" in names else None
    return QuantizedWeight(codes, scales, parts[0].dtype, inputs)


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
