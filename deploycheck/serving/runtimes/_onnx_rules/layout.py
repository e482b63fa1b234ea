"""Which number is where: shapes, order of axes, slices, joins, padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deploycheck.serving.runtimes._onnx_graph import Graph, Rule, Shape, Tensor
from deploycheck.serving.runtimes._onnx_types import INT64, held_as


def broadcast_in_dim(graph: Graph, equation: Any, x: Tensor) -> Tensor:
    """Give the operand the result's axes, those that it lacks of size 1; the arithmetic after it broadcasts."""
    shape, axes = equation.params["shape"], equation.params["broadcast_dimensions"]
    if not x.shape:
        return x
    sparse: list[Any] = [1] * len(shape)
    for axis, size in zip(axes[len(axes) - len(x.shape) :], x.shape, strict=True):  # ones that it began with are gone
        sparse[axis] = size
    return _with_ones(graph, x, tuple(sparse))


def _with_ones(graph: Graph, x: Tensor, shape: Shape) -> Tensor:
    """Return numbers in another shape, without the ones that it begins with: arithmetic adds them by itself."""
    more = len(shape) - len(x.shape)
    return x if more >= 0 and shape == (1,) * more + x.shape else graph.reshape(x, shape)


def reshape(graph: Graph, equation: Any, x: Tensor) -> Tensor:
    """Return the same numbers in another shape."""
    if equation.params["dimensions"] is not None:
        x = graph.transpose(x, equation.params["dimensions"])
    return _with_ones(graph, x, equation.outvars[0].aval.shape)


def squeeze(graph: Graph, equation: Any, x: Tensor) -> Tensor:
    """Leave out axes of size 1."""
    return graph.reshape(x, equation.outvars[0].aval.shape)


def transpose(graph: Graph, equation: Any, x: Tensor) -> Tensor:
    """Return the axes in another order."""
    return graph.transpose(x, equation.params["permutation"])


def concatenate(graph: Graph, equation: Any, *parts: Tensor) -> Tensor:
    """Join along an axis."""
    shape = equation.outvars[0].aval.shape
    return graph.add("Concat", *parts, shape=shape, axis=int(equation.params["dimension"]))


def stack(graph: Graph, equation: Any, *parts: Tensor) -> Tensor:
    """Join along a new axis."""
    axis, shape = int(equation.params["axis"]), equation.outvars[0].aval.shape
    slices = [graph.reshape(each, (*each.shape[:axis], 1, *each.shape[axis:])) for each in parts]
    return graph.add("Concat", *slices, shape=shape, axis=axis)


def unstack(graph: Graph, equation: Any, x: Tensor) -> list[Tensor]:
    """Return the slices along an axis, without it."""
    axis = int(equation.params["axis"])
    each = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    parts = graph.add_many(
        "Split", [x], [(each, x.dtype) for _ in equation.outvars], axis=axis, num_outputs=x.shape[axis]
    )
    return [graph.reshape(part, v.aval.shape) for part, v in zip(parts, equation.outvars, strict=True)]


def tile(graph: Graph, equation: Any, x: Tensor) -> Tensor:
    """Repeat along each axis."""
    return graph.add("Tile", x, graph.sizes(equation.params["reps"]), shape=equation.outvars[0].aval.shape)


def split(graph: Graph, equation: Any, x: Tensor) -> list[Tensor]:
    """Cut into parts along an axis."""
    sizes = graph.constant(np.array(equation.params["sizes"], np.int64))
    results = [(v.aval.shape, x.dtype) for v in equation.outvars]
    return graph.add_many("Split", [x, sizes], results, axis=int(equation.params["axis"]))


def rev(graph: Graph, equation: Any, x: Tensor) -> Tensor:
    """Turn axes round."""
    axes = np.array(equation.params["dimensions"], np.int64)
    if not len(axes):
        return x
    back = [graph.constant(np.full(len(axes), end, np.int64)) for end in (-1, np.iinfo(np.int64).min)]
    return graph.add("Slice", x, *back, graph.constant(axes), graph.constant(np.full(len(axes), -1)), shape=x.shape)


def slice_(graph: Graph, equation: Any, x: Tensor) -> Tensor:
    """Return part of each axis, in steps."""
    known = equation.params
    strides = known["strides"] or (1,) * len(x.shape)
    return cut(graph, x, known["start_indices"], known["limit_indices"], strides, equation.outvars[0].aval.shape)


def cut(
    graph: Graph, x: Tensor, starts: Sequence[Any], limits: Sequence[Any], strides: Sequence[int], shape: Sequence[Any]
) -> Tensor:
    """Return ``x[starts:limits:strides]``, which has this shape."""
    axes = tuple(
        axis
        for axis, size in enumerate(x.shape)
        if not (starts[axis] == 0 and limits[axis] == size and strides[axis] == 1)
    )
    if not axes:
        return x
    low, high, steps = (graph.sizes(tuple(ends[axis] for axis in axes)) for ends in (starts, limits, strides))
    return graph.add("Slice", x, low, high, graph.sizes(axes), steps, shape=tuple(shape))


def pad(graph: Graph, equation: Any, x: Tensor, value: Tensor) -> Tensor:
    """Put a number before, after and between those of an axis; leave out where less than none is asked for."""
    return padded(graph, x, value, equation.params["padding_config"])


def padded(graph: Graph, x: Tensor, value: Tensor, config: Sequence[tuple[int, int, int]]) -> Tensor:
    """Return a tensor with ``(before, after, between)`` numbers more on each axis; before and after may be negative."""
    for axis, (_, _, between) in enumerate(config):
        if between:
            x = _spread(graph, x, value, axis, between)
    low, high = ([each[side] for each in config] for side in (0, 1))
    grown = tuple(size + _more(a) + _more(b) for size, a, b in zip(x.shape, low, high, strict=True))
    if any(_more(each) != 0 for each in (*low, *high)):
        pads = graph.sizes(tuple(_more(each) for each in (*low, *high)))
        x = graph.add("Pad", x, pads, graph.reshape(value, ()), shape=grown)
    starts = [_less(each) for each in low]
    limits = [size - _less(each) for size, each in zip(x.shape, high, strict=True)]
    shape = [limit - start for start, limit in zip(starts, limits, strict=True)]
    return cut(graph, x, starts, limits, [1] * len(starts), shape)


def _more(width: Any) -> Any:
    """Return a width of padding that isn't negative; one that depends on the batch never is."""
    return max(int(width), 0) if isinstance(width, int | np.integer) else width


def _less(width: Any) -> int:
    """Return by how much a width is negative."""
    return max(-int(width), 0) if isinstance(width, int | np.integer) else 0


def _spread(graph: Graph, x: Tensor, value: Tensor, axis: int, between: int) -> Tensor:
    """Put ``between`` numbers after each of an axis but the last."""
    before, size, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    apart = graph.reshape(x, (*before, size, 1, *after))
    config = [(0, 0, 0)] * (axis + 1) + [(0, between, 0)] + [(0, 0, 0)] * len(after)
    whole = (*before, size * (1 + between), *after)
    joined = graph.reshape(padded(graph, apart, value, config), whole)
    shape = (*before, size * (1 + between) - between, *after)
    return cut(graph, joined, [0] * len(shape), shape, [1] * len(shape), shape)


def iota(graph: Graph, equation: Any) -> Tensor:
    """Count along one axis; the others are broadcast."""
    dtype, shape, axis = (equation.params[name] for name in ("dtype", "shape", "dimension"))
    return counted(graph, shape[axis], len(shape), int(axis), held_as(dtype))


def counted(graph: Graph, size: Any, rank: int, axis: int, dtype: np.dtype[Any]) -> Tensor:
    """Return 0, 1, ... along one of ``rank`` axes, the others of size 1."""
    shape = tuple(size if each == axis else 1 for each in range(rank))
    if isinstance(size, int | np.integer):
        return graph.constant(np.arange(size, dtype=dtype).reshape(shape))
    zero, one = graph.constant(0, INT64), graph.constant(1, INT64)
    numbers = graph.add("Range", zero, graph.reshape(graph.sizes((size,)), ()), one, shape=(size,))
    return graph.reshape(graph.cast(numbers, dtype), shape)


def dynamic_slice(graph: Graph, equation: Any, x: Tensor, *starts: Tensor) -> Tensor:
    """Return a window that begins where the operands say, moved back into the array where it leaves it."""
    sizes = equation.params["slice_sizes"]
    for axis, size in enumerate(sizes):
        if size != x.shape[axis]:
            x = _window(graph, x, axis, _clamped(graph, starts[axis], x.shape[axis] - size), size)
    return x


def dynamic_update_slice(graph: Graph, equation: Any, x: Tensor, update: Tensor, *starts: Tensor) -> Tensor:
    """Put an update in place of such a window."""
    del equation
    return _updated(graph, x, update, starts, 0)


def _updated(graph: Graph, x: Tensor, update: Tensor, starts: Sequence[Tensor], axis: int) -> Tensor:
    if axis == len(x.shape):
        return update
    size = update.shape[axis]
    if size == x.shape[axis]:
        return _updated(graph, x, update, starts, axis + 1)
    start = _clamped(graph, starts[axis], x.shape[axis] - size)
    end = graph.add("Add", start, graph.sizes((size,)))
    middle = _updated(graph, _window(graph, x, axis, start, size), update, starts, axis + 1)
    before = _between(graph, x, axis, graph.constant([0], INT64), start)
    after = _between(graph, x, axis, end, graph.sizes((x.shape[axis],)))
    return graph.add("Concat", before, middle, after, shape=x.shape, axis=axis)


def _clamped(graph: Graph, start: Tensor, most: Any) -> Tensor:
    """Return where a window begins, ``[1]`` of int64, between 0 and ``most``."""
    wide = graph.reshape(graph.cast(start, INT64), (1,))
    return graph.add("Min", graph.add("Max", wide, graph.constant([0], INT64)), graph.sizes((most,)))


def _window(graph: Graph, x: Tensor, axis: int, start: Tensor, size: Any) -> Tensor:
    end = graph.add("Add", start, graph.sizes((size,)))
    return _between(graph, x, axis, start, end, size)


def _between(graph: Graph, x: Tensor, axis: int, start: Tensor, end: Tensor, size: Any = None) -> Tensor:
    shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
    return graph.add("Slice", x, start, end, graph.constant([axis], INT64), shape=shape)


def dim_as_value(graph: Graph, equation: Any) -> Tensor:
    """Return a size as a number."""
    size = graph.reshape(graph.sizes((equation.params["dim"],)), ())
    return graph.cast(size, held_as(equation.outvars[0].aval.dtype))


ELEMENTWISE: Mapping[str, Rule] = {"broadcast_in_dim": broadcast_in_dim, "iota": iota, "dim_as_value": dim_as_value}
RULES: Mapping[str, Rule] = {
    "reshape": reshape,
    "squeeze": squeeze,
    "transpose": transpose,
    "concatenate": concatenate,
    "split": split,
    "stack": stack,
    "tile": tile,
    "unstack": unstack,
    "rev": rev,
    "slice": slice_,
    "pad": pad,
    "dynamic_slice": dynamic_slice,
    "dynamic_update_slice": dynamic_update_slice,
}
