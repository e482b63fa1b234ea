"""Matrix products and convolutions, in floats and in int8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploycheck.serving.runtimes._onnx_graph import Graph, Rule, Tensor
from deploycheck.serving.runtimes._onnx_rules.layout import padded
from deploycheck.serving.runtimes._onnx_types import FLOAT, INT32, NotInOnnx, held_as

BYTES = (np.dtype("int8"), np.dtype("uint8"))
UINT8 = np.dtype("uint8")
MIDDLE = 128
"""What is added to an int8 number to make it a uint8 one."""


@dataclass(frozen=True)
class _Factor:
    """An operand of a product: its axes that both operands have, its own, and those that are summed over."""

    tensor: Tensor
    zero: Tensor | None
    batch: Sequence[int]
    free: Sequence[int]
    summed: Sequence[int]

    def sizes(self, axes: Sequence[int]) -> tuple[Any, ...]:
        """Return the sizes of axes."""
        return tuple(self.tensor.shape[axis] for axis in axes)

    def moves(self, order: Sequence[int]) -> bool:
        """Whether numbers are moved for this order of axes in each run; those of a weight are moved once."""
        varies = any(not isinstance(size, int) for size in self.tensor.shape)
        return varies and list(order) != sorted(order)

    @property
    def as_left(self) -> list[int]:
        """The order of axes of the left operand of ``MatMul``."""
        return [*self.batch, *self.free, *self.summed]

    @property
    def as_right(self) -> list[int]:
        """The order of axes of the right operand of ``MatMul``."""
        return [*self.batch, *self.summed, *self.free]


def dot_general(graph: Graph, equation: Any, left: Tensor, right: Tensor) -> Tensor:
    """Multiply matrices: the axes are put in ``MatMul``'s order, and joined where it has one axis for several."""
    summed, batch = equation.params["dimension_numbers"]
    dtype = equation.outvars[0].aval.dtype
    a, b = (
        _Factor(
            tensor,
            zero,
            batch[side],
            [axis for axis in range(len(tensor.shape)) if axis not in (*summed[side], *batch[side])],
            summed[side],
        )
        for side, (tensor, zero) in enumerate(_factors(graph, dtype, left, right))
    )
    if a.moves(a.as_left) + b.moves(b.as_right) <= b.moves(b.as_left) + a.moves(a.as_right):
        return _matmul(graph, a, b, dtype)
    swapped = _matmul(graph, b, a, dtype)
    shared, own = len(a.batch), len(b.free)
    order = [*range(shared), *range(shared + own, len(swapped.shape)), *range(shared, shared + own)]
    return graph.transpose(swapped, order)


def _factors(graph: Graph, dtype: Any, *tensors: Tensor) -> list[tuple[Tensor, Tensor | None]]:
    """Return the operands in a type that runtimes multiply, and for 8-bit ones which number means 0."""
    if dtype == INT32 and all(tensor.dtype in BYTES for tensor in tensors):
        return [as_uint8(graph, tensor) for tensor in tensors]
    if dtype.kind in "iub" and dtype.name not in ("int32", "int64", "uint32"):
        raise NotInOnnx(f"with a result of type {dtype.name}")
    return [(graph.cast(tensor, held_as(dtype)), None) for tensor in tensors]


def _matmul(graph: Graph, a: _Factor, b: _Factor, dtype: Any) -> Tensor:
    batch, rows, columns, terms = a.sizes(a.batch), a.sizes(a.free), b.sizes(b.free), _count(a.sizes(a.summed))
    # Without batch axes, the rows may keep their axes: MatMul takes any number of them on the left.
    kept = rows if rows and not batch else (_count(rows),)
    left = graph.reshape(graph.transpose(a.tensor, a.as_left), (*batch, *kept, terms))
    right = graph.reshape(graph.transpose(b.tensor, b.as_right), (*batch, terms, _count(columns)))
    shape = (*batch, *kept, _count(columns))
    if a.zero and b.zero:
        product = graph.add("MatMulInteger", left, right, a.zero, b.zero, shape=shape, dtype=INT32)
    else:
        product = graph.add("MatMul", left, right, shape=shape, dtype=held_as(dtype))
    return graph.reshape(product, (*batch, *rows, *columns))


def _count(sizes: Sequence[Any]) -> Any:
    count: Any = 1
    for size in sizes:
        count = count * size
    return count


def as_uint8(graph: Graph, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return 8-bit numbers as uint8, int8 ones with 128 added, and which of them means 0.

    Only so, a product is exact and fast on every processor: of uint8 by int8, processors without VNNI add two products
    in 16 bits; int8 by int8 has only a slow form.
    """
    if x.dtype == UINT8:
        return x, graph.constant(0, UINT8)
    middle = graph.constant(MIDDLE, UINT8)
    rounded = _before_rounding(graph, x)
    if rounded is not None:  # one operator that rounds, adds and limits, in place of four
        return graph.add("QuantizeLinear", rounded, graph.constant(1, FLOAT), middle, dtype=UINT8), middle
    moved = graph.add("Add", graph.cast(x, INT32), graph.constant(MIDDLE, INT32))
    return graph.cast(moved, UINT8), middle


def _before_rounding(graph: Graph, x: Tensor) -> Tensor | None:
    """Return the float numbers that were rounded to int8 ones, if these were made so."""
    name = x.name
    for op in ("Cast", "Clip", "Round"):
        node = graph.producer(name, op)
        if node is None:
            return None
        name = node.input[0]
    return Tensor(name, x.shape, FLOAT)


def convolution(graph: Graph, equation: Any, x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve, in ONNX's order of axes: batch, channels, space."""
    known, whole = equation.params, equation.outvars[0].aval
    numbers, space = known["dimension_numbers"], len(known["window_strides"])
    if known["batch_group_count"] != 1 or not 1 <= space <= 3:
        raise NotInOnnx("by groups of the batch" if space else "without a spatial axis")
    if (whole.dtype.kind in "iu" and not {x.dtype, kernel.dtype}.issubset(BYTES)) or whole.dtype.name == "float64":
        raise NotInOnnx(f"with a result of type {whole.dtype.name}")
    (x, x_zero), (kernel, kernel_zero) = _factors(graph, whole.dtype, x, kernel)
    x, kernel = graph.transpose(x, numbers.lhs_spec), graph.transpose(kernel, numbers.rhs_spec)
    pads = [(int(low), int(high)) for low, high in known["padding"]]
    if any(each != 1 for each in known["lhs_dilation"]) or min(min(each) for each in pads) < 0:
        between = [each - 1 for each in known["lhs_dilation"]]
        config = [(0, 0, 0), (0, 0, 0), *((low, high, gap) for (low, high), gap in zip(pads, between, strict=True))]
        x, pads = padded(graph, x, x_zero or graph.constant(0, x.dtype), config), [(0, 0)] * space
    result = graph.add(
        *(("ConvInteger", x, kernel, x_zero, kernel_zero) if x_zero and kernel_zero else ("Conv", x, kernel)),
        shape=tuple(whole.shape[axis] for axis in numbers.out_spec),
        dtype=held_as(whole.dtype),
        strides=list(known["window_strides"]),
        dilations=list(known["rhs_dilation"]),
        pads=[low for low, _ in pads] + [high for _, high in pads],
        group=known["feature_group_count"],
        kernel_shape=list(kernel.shape[2:]),
    )
    return graph.transpose(result, np.argsort(numbers.out_spec))


RULES: Mapping[str, Rule] = {"dot_general": dot_general, "conv_general_dilated": convolution}
