"""Matrix products and convolutions, in floats and in int8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deploycheck.serving.runtimes._onnx_graph import Graph, Rule, Shape, Tensor
from deploycheck.serving.runtimes._onnx_rules.layout import padded
from deploycheck.serving.runtimes._onnx_types import FLOAT, INT32, NotInOnnx, held_as

BYTES = (np.dtype("int8"), np.dtype("uint8"))
UINT8 = np.dtype("uint8")
MIDDLE = 128
"""What is added to an int8 number to make it a uint8 one."""


def dot_general(graph: Graph, equation: Any, left: Tensor, right: Tensor) -> Tensor:
    """Multiply matrices: the axes are put in ``MatMul``'s order, and joined where it has one axis for several."""
    (left_sum, right_sum), (left_batch, right_batch) = equation.params["dimension_numbers"]
    left_free = [axis for axis in range(len(left.shape)) if axis not in (*left_sum, *left_batch)]
    right_free = [axis for axis in range(len(right.shape)) if axis not in (*right_sum, *right_batch)]
    batch = [left.shape[axis] for axis in left_batch]
    rows, columns = ([x.shape[axis] for axis in free] for x, free in ((left, left_free), (right, right_free)))
    # Without batch axes, the rows may keep their axes: MatMul takes any number of them on the left.
    kept = rows if not batch and rows else [_count(rows)]
    a = graph.transpose(left, [*left_batch, *left_free, *left_sum])
    b = graph.transpose(right, [*right_batch, *right_sum, *right_free])
    terms = _count([left.shape[axis] for axis in left_sum])
    a = graph.reshape(a, (*batch, *kept, terms))
    b = graph.reshape(b, (*batch, terms, _count(columns)))
    product = _multiply(graph, equation, a, b, (*batch, *kept, _count(columns)))
    return graph.reshape(product, (*batch, *rows, *columns))


def _count(sizes: Sequence[Any]) -> Any:
    count: Any = 1
    for size in sizes:
        count = count * size
    return count


def _multiply(graph: Graph, equation: Any, a: Tensor, b: Tensor, shape: Shape) -> Tensor:
    """Return the product of matrices in the type that the program asks for."""
    whole = equation.outvars[0].aval.dtype
    if a.dtype in BYTES and b.dtype in BYTES and whole == INT32:
        return in_bytes(graph, "MatMulInteger", a, b, shape)
    dtype = _common(equation)
    return graph.add("MatMul", graph.cast(a, dtype), graph.cast(b, dtype), shape=shape, dtype=dtype)


def _common(equation: Any) -> np.dtype[Any]:
    """Return the type in which a product of these operands can be computed without loss."""
    dtype = equation.outvars[0].aval.dtype
    if dtype.kind in "iub" and dtype.name not in ("int32", "int64", "uint32"):
        raise NotInOnnx(f"with a result of type {dtype.name}")
    return held_as(dtype)


def in_bytes(graph: Graph, op: str, a: Tensor, b: Tensor, shape: Shape, **given: Any) -> Tensor:
    """Return the int32 product of 8-bit numbers.

    All are given as uint8, int8 ones with 128 added, because only then it is exact and fast on every processor: of
    uint8 by int8, processors without VNNI add two products in 16 bits; int8 by int8 has only a slow form.
    """
    (left, left_zero), (right, right_zero) = (as_uint8(graph, each) for each in (a, b))
    return graph.add(op, left, right, left_zero, right_zero, shape=shape, dtype=INT32, **given)


def as_uint8(graph: Graph, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return 8-bit numbers as uint8, and which of them means 0."""
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
    numbers = known["dimension_numbers"]
    space = len(numbers.lhs_spec) - 2
    if known["batch_group_count"] != 1 or not 1 <= space <= 3:
        raise NotInOnnx("by groups of the batch" if space else "without a spatial axis")
    x, kernel = graph.transpose(x, numbers.lhs_spec), graph.transpose(kernel, numbers.rhs_spec)
    pads = [(int(low), int(high)) for low, high in known["padding"]]
    if any(each != 1 for each in known["lhs_dilation"]) or min(min(each) for each in pads) < 0:
        config = [(0, 0, 0), (0, 0, 0)] + [
            (low, high, between - 1) for (low, high), between in zip(pads, known["lhs_dilation"], strict=True)
        ]
        x, pads = padded(graph, x, graph.constant(0, x.dtype), config), [(0, 0)] * space
    given = {
        "strides": list(known["window_strides"]),
        "dilations": list(known["rhs_dilation"]),
        "pads": [low for low, _ in pads] + [high for _, high in pads],
        "group": known["feature_group_count"],
        "kernel_shape": list(kernel.shape[2:]),
    }
    shape = tuple(whole.shape[axis] for axis in numbers.out_spec)
    return graph.transpose(_convolve(graph, whole.dtype, x, kernel, shape, given), np.argsort(numbers.out_spec))


def _convolve(graph: Graph, dtype: Any, x: Tensor, kernel: Tensor, shape: Shape, given: Mapping[str, Any]) -> Tensor:
    if x.dtype in BYTES and kernel.dtype in BYTES and dtype == INT32:
        return in_bytes(graph, "ConvInteger", x, kernel, shape, **given)
    if dtype.kind in "iu" or dtype.name == "float64":
        raise NotInOnnx(f"with a result of type {dtype.name}")
    return graph.add("Conv", graph.cast(x, FLOAT), graph.cast(kernel, FLOAT), shape=shape, dtype=FLOAT, **given)


RULES: Mapping[str, Rule] = {"dot_general": dot_general, "conv_general_dilated": convolution}
