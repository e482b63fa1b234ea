"""Numbers at places that are computed: gather and scatter in JAX's general form.

Both work on windows of an array: the start of each is given on some axes, and some of its axes are left out. Here the
axes are put in one order, in which ONNX's operators need no windows: axes that index and array share, the index's
other axes, the axes of a window that have a start, and the rest of the array's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.lax import GatherScatterMode

from deploycheck.serving.runtimes._onnx_graph import Graph, Rule, Shape, Tensor
from deploycheck.serving.runtimes._onnx_rules.elementwise import like, where
from deploycheck.serving.runtimes._onnx_rules.layout import counted, cut, padded
from deploycheck.serving.runtimes._onnx_types import BOOL, INT32, INT64, NotInOnnx


@dataclass(frozen=True)
class _Windows:
    """Windows of an array ``x``, one for each of ``starts``.

    ``along`` are the array's axes that a start has a number for, ``sizes`` the window's size on each, ``left_out`` the
    axes that a window doesn't have, ``shared`` the array's axes that go with ``shared_starts`` of the starts, and
    ``places`` the positions that a window's axes have among those of the result.
    """

    x: Shape
    starts: Shape
    along: tuple[int, ...]
    sizes: tuple[Any, ...]
    left_out: tuple[int, ...]
    shared: tuple[int, ...]
    shared_starts: tuple[int, ...]
    places: tuple[int, ...]

    @property
    def rest(self) -> list[int]:
        """The array's axes that windows have whole."""
        return [axis for axis in range(len(self.x)) if axis not in (*self.along, *self.shared)]

    @property
    def others(self) -> list[int]:
        """The starts' axes that aren't the array's."""
        return [axis for axis in range(len(self.starts) - 1) if axis not in self.shared_starts]

    @property
    def moving(self) -> list[int]:
        """Which of ``along`` a window has as an axis."""
        return [at for at, axis in enumerate(self.along) if axis not in self.left_out]

    def order(self) -> list[int]:
        """Return where the axes of JAX's result are in ours."""
        ours = [("starts", axis) for axis in (*self.shared_starts, *self.others)]
        ours += [("x", self.along[at]) for at in self.moving] + [("x", axis) for axis in self.rest]
        of_x = [axis for axis in range(len(self.x)) if axis not in (*self.left_out, *self.shared)]
        placed = dict(zip(self.places, (("x", axis) for axis in of_x), strict=True))
        of_starts = iter(range(len(self.starts) - 1))
        return [ours.index(placed.get(at) or ("starts", next(of_starts))) for at in range(len(ours))]


def gather(graph: Graph, equation: Any, x: Tensor, starts: Tensor) -> Tensor:
    """Return the windows; where one is not inside the array, the fill value."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    windows = _Windows(
        x=x.shape,
        starts=starts.shape,
        along=numbers.start_index_map,
        sizes=tuple(sizes[axis] for axis in numbers.start_index_map),
        left_out=numbers.collapsed_slice_dims,
        shared=numbers.operand_batching_dims,
        shared_starts=numbers.start_indices_batching_dims,
        places=numbers.offset_dims,
    )
    if any(sizes[axis] != x.shape[axis] for axis in windows.rest):
        raise NotInOnnx("of part of an axis")
    index, inside = _find_places(graph, starts, windows, equation.params["mode"])
    ordered = graph.transpose(x, [*windows.shared, *windows.along, *windows.rest])
    shape = (*index.shape[:-1], *(x.shape[axis] for axis in windows.rest))
    if len(windows.along) == 1 and not windows.shared:
        found = graph.add("Gather", ordered, graph.reshape(index, index.shape[:-1]), shape=shape, axis=0)
    else:
        found = graph.add("GatherND", ordered, index, shape=shape, batch_dims=len(windows.shared))
    if inside is not None:
        fill = graph.constant(_fill_value(equation.params["fill_value"], x.dtype), x.dtype)
        found = where(graph, _over(graph, inside, len(shape)), found, fill)
    return graph.transpose(found, windows.order())


def scatter(reduction: str) -> Rule:
    """Return the rule of a scatter, which puts updates in, or adds them to what is there, and so on."""

    def rule(graph: Graph, equation: Any, x: Tensor, starts: Tensor, updates: Tensor) -> Tensor:
        numbers = equation.params["dimension_numbers"]
        if numbers.operand_batching_dims:
            raise NotInOnnx("with axes of a batch")
        along, left_out = numbers.scatter_dims_to_operand_dims, numbers.inserted_window_dims
        kept = [axis for axis in range(len(x.shape)) if axis not in left_out]
        sizes = {axis: updates.shape[place] for axis, place in zip(kept, numbers.update_window_dims, strict=True)}
        windows = _Windows(
            x=x.shape,
            starts=starts.shape,
            along=along,
            sizes=tuple(sizes.get(axis, 1) for axis in along),
            left_out=left_out,
            shared=(),
            shared_starts=(),
            places=numbers.update_window_dims,
        )
        if any(sizes[axis] != x.shape[axis] for axis in windows.rest):
            raise NotInOnnx("to part of an axis")
        index, inside = _find_places(graph, starts, windows, equation.params["mode"])
        axes = [*along, *windows.rest]
        parts = graph.transpose(updates, np.argsort(windows.order()))
        return graph.transpose(
            _scattered(graph, graph.transpose(x, axes), index, inside, parts, reduction), np.argsort(axes)
        )

    return rule


def _scattered(
    graph: Graph, x: Tensor, index: Tensor, inside: Tensor | None, updates: Tensor, reduction: str
) -> Tensor:
    """Scatter along the first axes; what is not inside goes into one more row, which is cut off."""
    if inside is None:
        return graph.add("ScatterND", x, index, updates, shape=x.shape, reduction=reduction)
    grown = padded(graph, x, like(graph, 0, x), [(0, 1, 0)] + [(0, 0, 0)] * (len(x.shape) - 1))
    outside = graph.add("Not", _over(graph, inside, len(index.shape)))
    last = graph.constant([int(x.shape[0])] + [0] * (index.shape[-1] - 1), INT64)
    moved = graph.add("Where", outside, last, index, shape=index.shape, dtype=INT64)
    result = graph.add("ScatterND", grown, moved, updates, shape=grown.shape, reduction=reduction)
    return cut(graph, result, [0] * len(x.shape), x.shape, [1] * len(x.shape), x.shape)


def _find_places(graph: Graph, starts: Tensor, windows: _Windows, mode: Any) -> tuple[Tensor, Tensor | None]:
    """Return the place of each number of each window along ``along``, and which windows are inside the array.

    The second is None where none needs to be known.
    """
    ordered = graph.transpose(
        graph.cast(starts, INT64), [*windows.shared_starts, *windows.others, len(starts.shape) - 1]
    )
    most = graph.sizes(tuple(windows.x[axis] - size for axis, size in zip(windows.along, windows.sizes, strict=True)))
    zero = graph.constant(0, INT64)
    limited = graph.add("Min", graph.add("Max", ordered, zero), most, shape=ordered.shape)
    inside = None
    if mode == GatherScatterMode.FILL_OR_DROP:
        same = graph.cast(graph.add("Equal", limited, ordered, dtype=BOOL), INT32)
        last = graph.constant([len(ordered.shape) - 1], INT64)
        inside = graph.cast(graph.add("ReduceMin", same, last, shape=ordered.shape[:-1], keepdims=0), BOOL)
    sizes = [windows.sizes[at] for at in windows.moving]
    index = graph.reshape(limited, (*ordered.shape[:-1], *(1 for _ in sizes), ordered.shape[-1]))
    units = np.eye(len(windows.along), dtype=np.int64)
    for axis, at in enumerate(windows.moving):
        if not (isinstance(sizes[axis], int) and sizes[axis] == 1):
            steps = counted(graph, sizes[axis], len(sizes) + 1, axis, INT64)
            index = graph.add("Add", index, graph.add("Mul", steps, graph.constant(units[at])))
    return index, inside


def _over(graph: Graph, inside: Tensor, rank: int) -> Tensor:
    """Return what is said of each window for each of its numbers."""
    return graph.reshape(inside, (*inside.shape, *(1,) * (rank - len(inside.shape))))


def _fill_value(given: Any, dtype: np.dtype[Any]) -> Any:
    """Return what JAX gives for a number outside of an array."""
    if given is not None:
        return given
    if dtype.kind == "f":
        return np.nan
    if dtype.kind == "b":
        return True
    return np.iinfo(dtype).min if dtype.kind == "i" else np.iinfo(dtype).max


RULES: Mapping[str, Rule] = {
    "gather": gather,
    "scatter": scatter("none"),
    **{f"scatter-{name}": scatter(name) for name in ("add", "mul", "min", "max")},
}
