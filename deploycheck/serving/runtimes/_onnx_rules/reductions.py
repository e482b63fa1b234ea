"""Sums, largest and smallest numbers: along axes, in windows, running; sorting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deploycheck.serving.runtimes._onnx_graph import Graph, Rule, Shape, Tensor
from deploycheck.serving.runtimes._onnx_rules.elementwise import like, wide
from deploycheck.serving.runtimes._onnx_rules.layout import cut, padded
from deploycheck.serving.runtimes._onnx_types import BOOL, INT32, INT64, NotInOnnx


def reduction(op: str) -> Rule:
    """Return the rule of a sum or product along axes."""

    def rule(graph: Graph, equation: Any, x: Tensor) -> Tensor:
        return _reduce(graph, op, x, equation)

    return rule


def _reduce(graph: Graph, op: str, x: Tensor, equation: Any) -> Tensor:
    axes = graph.constant(np.array(equation.params["axes"], np.int64))
    if not axes.shape[0]:
        return x
    (number,) = wide(graph, x)
    result = graph.add(op, number, axes, shape=equation.outvars[0].aval.shape, keepdims=0)
    return graph.cast(result, x.dtype)


def extreme(op: str) -> Rule:
    """Return the rule of the largest or smallest number along axes; NaN if there is one, which runtimes ignore."""

    def rule(graph: Graph, equation: Any, x: Tensor) -> Tensor:
        result = _reduce(graph, op, x, equation)
        if x.dtype.kind != "f" or not equation.params["axes"]:
            return result
        is_nan = graph.cast(graph.add("IsNaN", x, dtype=BOOL), INT32)
        found = graph.cast(_reduce(graph, "ReduceMax", is_nan, equation), BOOL)
        return graph.add("Where", found, like(graph, math.nan, x), result, dtype=x.dtype)

    return rule


def position(op: str) -> Rule:
    """Return the rule of ``argmax`` or ``argmin``: the first of equal numbers, and the first NaN if there is one."""

    def rule(graph: Graph, equation: Any, x: Tensor) -> Tensor:
        (axis,), dtype = equation.params["axes"], np.dtype(equation.params["index_dtype"])
        shape = equation.outvars[0].aval.shape
        (number,) = wide(graph, x)
        given: dict[str, Any] = {"shape": shape, "dtype": INT64, "axis": int(axis), "keepdims": 0}
        result = graph.add(op, number, **given)
        if x.dtype.kind == "f":
            is_nan = graph.cast(graph.add("IsNaN", x, dtype=BOOL), INT32)
            axes = graph.constant([axis], INT64)
            some = graph.cast(graph.add("ReduceMax", is_nan, axes, shape=shape, keepdims=0), BOOL)
            result = graph.add("Where", some, graph.add("ArgMax", is_nan, **given), result, dtype=INT64)
        return graph.cast(result, dtype)

    return rule


def running_sum(graph: Graph, equation: Any, x: Tensor) -> Tensor:
    """Return the sums of the numbers so far."""
    (number,) = wide(graph, x)
    axis = graph.constant(equation.params["axis"], INT64)
    return graph.cast(
        graph.add("CumSum", number, axis, shape=x.shape, reverse=int(equation.params["reverse"])), x.dtype
    )


def running(op: str) -> Rule:
    """Return the rule of the products so far, or of the largest or smallest number so far, in log2(size) operators."""

    def rule(graph: Graph, equation: Any, x: Tensor) -> Tensor:
        axis, backwards = int(equation.params["axis"]), equation.params["reverse"]
        (result,) = wide(graph, x)
        size, shift = x.shape[axis], 1
        while shift < size:
            before, after = (_part(graph, result, axis, *ends) for ends in ((0, size - shift), (shift, size)))
            joined = graph.add(op, before, after)
            kept = _part(graph, result, axis, *((size - shift, size) if backwards else (0, shift)))
            result = graph.add("Concat", *((joined, kept) if backwards else (kept, joined)), shape=x.shape, axis=axis)
            shift *= 2
        return graph.cast(result, x.dtype)

    return rule


def _part(graph: Graph, x: Tensor, axis: int, start: int, end: int) -> Tensor:
    starts, limits = [0] * len(x.shape), list(x.shape)
    starts[axis], limits[axis] = start, end
    shape = (*x.shape[:axis], end - start, *x.shape[axis + 1 :])
    return cut(graph, x, starts, limits, [1] * len(starts), shape)


def window_max(graph: Graph, equation: Any, x: Tensor) -> Tensor:
    """Return the largest number in each window."""
    return _pooled(graph, equation, x, "MaxPool", -math.inf)


def window_min(graph: Graph, equation: Any, x: Tensor) -> Tensor:
    """Return the smallest number in each window."""
    return graph.add("Neg", _pooled(graph, equation, graph.add("Neg", x), "MaxPool", -math.inf))


def window_sum(graph: Graph, equation: Any, x: Tensor) -> Tensor:
    """Return the sum in each window: its mean times its size."""
    mean = _pooled(graph, equation, x, "AveragePool", 0.0, count_include_pad=1)
    return graph.add("Mul", mean, like(graph, math.prod(equation.params["window_dimensions"]), mean))


def _pooled(graph: Graph, equation: Any, x: Tensor, op: str, outside: float, **given: Any) -> Tensor:
    """Pool along the axes whose windows are larger than 1; the others become ONNX's batch and channels."""
    known = equation.params
    if x.dtype.kind != "f":
        raise NotInOnnx(f"of {x.dtype.name}")
    pads = zip(known["padding"], known["base_dilation"], strict=True)
    config = [(int(low), int(high), int(base) - 1) for (low, high), base in pads]
    window, strides, dilation = (known[name] for name in ("window_dimensions", "window_strides", "window_dilation"))
    space = [axis for axis in range(len(window)) if (window[axis], strides[axis], config[axis]) != (1, 1, (0, 0, 0))]
    if not space:
        return x
    if len(space) > 3:
        raise NotInOnnx(f"along {len(space)} axes")
    # Explicit padding, because pooling takes no padding that is as wide as a window.
    x = padded(graph, x, graph.constant(outside, x.dtype), config)
    rest = [axis for axis in range(len(window)) if axis not in space]
    order = [*rest, *space]
    x = graph.transpose(x, order)
    shape = tuple(equation.outvars[0].aval.shape[axis] for axis in order)
    lead = x.shape[: len(rest)] if len(rest) == 2 else _two(x.shape[: len(rest)])
    pooled = graph.add(
        op,
        graph.reshape(x, (*lead, *x.shape[len(rest) :])),
        shape=(*lead, *shape[len(rest) :]),
        kernel_shape=[int(window[axis]) for axis in space],
        strides=[int(strides[axis]) for axis in space],
        dilations=[int(dilation[axis]) for axis in space],
        **given,
    )
    return graph.transpose(graph.reshape(pooled, shape), np.argsort(order))


def _two(sizes: Shape) -> Shape:
    """Return any number of axes as two."""
    rest: Any = 1
    for size in sizes[1:]:
        rest = rest * size
    return (sizes[0] if sizes else 1, rest)


def sort(graph: Graph, equation: Any, *arrays: Tensor) -> Sequence[Tensor]:
    """Sort the first array along an axis, and put the others in the same order; equal numbers keep theirs."""
    axis = int(equation.params["dimension"])
    if equation.params["num_keys"] != 1:
        raise NotInOnnx("by several keys")
    shape = arrays[0].shape
    values, order = _top(graph, arrays[0], shape[axis], axis, shape, largest=False)
    rest = [graph.add("GatherElements", each, order, shape=shape, axis=axis) for each in arrays[1:]]
    return [values, *rest]


def top_k(graph: Graph, equation: Any, x: Tensor) -> Sequence[Tensor]:
    """Return the largest numbers along an axis, and their positions."""
    axis = int(equation.params.get("axis", len(x.shape) - 1))
    shape = equation.outvars[0].aval.shape
    values, order = _top(graph, x, equation.params["k"], axis, shape, largest=True)
    return [values, graph.cast(order, INT32)]


def _top(graph: Graph, x: Tensor, count: Any, axis: int, shape: Shape, *, largest: bool) -> list[Tensor]:
    (number,) = wide(graph, x)
    k = graph.sizes((count,))
    values, order = graph.add_many(
        "TopK", [number, k], [(shape, number.dtype), (shape, INT64)], axis=axis, largest=int(largest), sorted=1
    )
    return [graph.cast(values, x.dtype), order]


RULES: Mapping[str, Rule] = {
    "reduce_sum": reduction("ReduceSum"),
    "reduce_prod": reduction("ReduceProd"),
    "reduce_and": reduction("ReduceMin"),
    "reduce_or": reduction("ReduceMax"),
    "reduce_max": extreme("ReduceMax"),
    "reduce_min": extreme("ReduceMin"),
    "argmax": position("ArgMax"),
    "argmin": position("ArgMin"),
    "cumsum": running_sum,
    "cumprod": running("Mul"),
    "cummax": running("Max"),
    "cummin": running("Min"),
    "reduce_window_max": window_max,
    "reduce_window_min": window_min,
    "reduce_window_sum": window_sum,
    "sort": sort,
    "top_k": top_k,
}
