"""Operators that move elements without computing with them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import max_dim

from deploycheck.errors import DeploycheckError
from deploycheck.stages.onnx.graph import Node, Rule
from deploycheck.stages.onnx.values import check_elements, known, namespace, operands, size, sizes

REPEATS = frozenset(
    {
        ("asymmetric", "floor"),
        ("half_pixel", "round_prefer_floor"),
        ("half_pixel", "round_prefer_ceil"),
        ("tf_half_pixel_for_nn", "floor"),
    }
)
"""Coordinates and rounding with which the nearest pixel, enlarged by a whole factor, is each pixel repeated."""


def _reshape(node: Node, x: Any, shape: Any) -> Any:
    """Reshape; 0 copies the size of the same axis, unless ``allowzero``, and -1 is what is left."""
    wanted = sizes(shape)
    if not node.attributes["allowzero"]:
        wanted = tuple(x.shape[axis] if _is(each, 0) else each for axis, each in enumerate(wanted))
    return namespace(x).reshape(x, wanted)


def _is(each: Any, value: int) -> bool:
    return not jax.export.is_symbolic_dim(each) and each == value


def _flatten(node: Node, x: Any) -> Any:
    axis = node.attributes["axis"]
    axis = axis + x.ndim if axis < 0 else axis
    return namespace(x).reshape(x, (_product(x.shape[:axis]), _product(x.shape[axis:])))


def _product(shape: Sequence[Any]) -> Any:
    return math.prod(shape) if shape else 1


def _transpose(node: Node, x: Any) -> Any:
    return namespace(x).transpose(x, node.attributes.get("perm"))


def _squeeze(node: Node, x: Any, axes: Any = None) -> Any:
    del node
    found = [axis for axis in range(x.ndim) if _is(x.shape[axis], 1)] if axes is None else sizes(axes, "axes")
    return namespace(x).squeeze(x, tuple(found))


def _unsqueeze(node: Node, x: Any, axes: Any) -> Any:
    del node
    return namespace(x).expand_dims(x, sizes(axes, "axes"))


def _concat(node: Node, *parts: Any) -> Any:
    parts = operands(*parts)
    return namespace(*parts).concatenate(parts, axis=node.attributes["axis"])


def _split(node: Node, x: Any, parts: Any = None) -> Any:
    axis = node.attributes["axis"]
    if parts is None:
        count = node.attributes.get("num_outputs", len(node.outputs))
        each = -(-x.shape[axis] // count)
        given = [each] * (count - 1)
    else:
        given = list(sizes(parts, "parts"))[:-1]
    (x,) = operands(x)
    return tuple(namespace(x).split(x, list(itertools.accumulate(given)), axis=axis))


def _slice(node: Node, x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    """Take a range of each of some axes; an end beyond the axis is its end."""
    del node
    first, last = sizes(starts, "starts"), sizes(ends, "ends")
    which = range(len(first)) if axes is None else sizes(axes, "axes")
    by = (1,) * len(first) if steps is None else sizes(steps, "steps")
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(which, first, last, by, strict=True):
        # One before the first is -1 for ONNX where the step is negative; for Python that is the last.
        start = max(start, -_bound(x.shape[axis])) if step < 0 else start
        before_first = step < 0 and not jax.export.is_symbolic_dim(end) and end < -_bound(x.shape[axis])
        index[axis] = slice(_within(start), None if before_first else _within(end), step)
    (x,) = operands(x)
    return x[tuple(index)]


def _bound(axis: Any) -> int:
    return 2**31 if jax.export.is_symbolic_dim(axis) else axis


def _within(at: Any) -> Any:
    """Return an end of a range, where a very large one is the end of the axis."""
    return None if not jax.export.is_symbolic_dim(at) and at >= 2**31 - 1 else at


def _tile(node: Node, x: Any, repeats: Any) -> Any:
    del node
    counts = sizes(repeats, "repeats")
    (x,) = operands(x)
    check_elements(tuple(a * b for a, b in zip(x.shape, counts, strict=True)))
    fixed = not any(map(jax.export.is_symbolic_dim, counts))
    return (namespace(x) if fixed else jnp).tile(x, counts)


def _pad(node: Node, x: Any, pads: Any, value: Any = None, axes: Any = None) -> Any:
    """Pad each of some axes at both ends. A negative number cuts instead."""
    which = list(range(x.ndim)) if axes is None else [size(axis) % x.ndim for axis in known(axes, "axes")]
    amounts = sizes(pads, "padding")
    before, after = [0] * x.ndim, [0] * x.ndim
    for at, axis in enumerate(which):
        before[axis], after[axis] = amounts[at], amounts[at + len(which)]
    mode = node.attributes["mode"]  # NumPy has the same names
    given = namespace(x, value)
    cut = tuple(slice(max_dim(0, -b), -max_dim(0, -a) or None) for b, a in zip(before, after, strict=True))
    wide = [(max_dim(0, b), max_dim(0, a)) for b, a in zip(before, after, strict=True)]
    fill = {"constant_values": 0 if value is None else value.reshape(())} if mode == "constant" else {}
    return given.pad(x[cut], wide, mode=mode, **fill)


def _depth_to_space(node: Node, x: Any) -> Any:
    block, (n, c, h, w) = node.attributes["blocksize"], x.shape
    depth = c // block**2
    if node.attributes["mode"] == "DCR":
        parts = jnp.transpose(jnp.reshape(x, (n, block, block, depth, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        parts = jnp.transpose(jnp.reshape(x, (n, depth, block, block, h, w)), (0, 1, 4, 2, 5, 3))
    return jnp.reshape(parts, (n, depth, h * block, w * block))


def _space_to_depth(node: Node, x: Any) -> Any:
    block, (n, c, h, w) = node.attributes["blocksize"], x.shape
    parts = jnp.reshape(x, (n, c, h // block, block, w // block, block))
    return jnp.reshape(jnp.transpose(parts, (0, 3, 5, 1, 2, 4)), (n, c * block**2, h // block, w // block))


def _resize(node: Node, x: Any, roi: Any = None, scales: Any = None, shape: Any = None) -> Any:
    """Resize by repeating (``nearest`` by whole factors), or linearly between the centres of pixels."""
    del roi
    settings = node.attributes
    factors, wanted = _resized(node, x, scales, shape)
    mode, place = settings["mode"], settings["coordinate_transformation_mode"]
    rule = (place, settings["nearest_mode"])
    repeats = rule in REPEATS or (rule == ("asymmetric", "round_prefer_floor") and max(factors) <= 2)
    if mode == "nearest" and repeats and all(factor >= 1 and factor.is_integer() for factor in factors):
        for axis, factor in enumerate(factors):
            x = x if factor == 1 else jnp.repeat(x, int(factor), axis)
        return x
    exact = all(float(a * f).is_integer() for a, f in zip(x.shape[1:], factors[1:], strict=True))
    if mode == "linear" and place == "half_pixel" and exact and factors[0] == 1:
        return jax.image.resize(x, wanted, "linear", antialias=bool(settings.get("antialias", 0)))
    raise DeploycheckError(
        f"{mode} by {', '.join(f'{factor:g}' for factor in factors)} with coordinates {place} isn't supported",
        hint="export it as nearest by whole factors, or as linear with half_pixel",
    )


def _resized(node: Node, x: Any, scales: Any, shape: Any) -> tuple[list[float], list[Any]]:
    """Return by what factor each axis grows, and its size then; a node states one or the other."""
    which = [axis % x.ndim for axis in node.attributes.get("axes") or range(x.ndim)]
    factors, wanted = [1.0] * x.ndim, list(x.shape)
    if scales is not None and scales.size:
        for axis, factor in zip(which, known(scales, "scales"), strict=True):
            factors[axis], wanted[axis] = float(factor), _scaled(x.shape[axis], float(factor))
    else:
        for axis, each in zip(which, sizes(shape), strict=True):
            factors[axis], wanted[axis] = 1.0 if each == x.shape[axis] else each / x.shape[axis], each
    return factors, wanted


def _scaled(extent: Any, factor: float) -> Any:
    return extent if factor == 1 else math.floor(extent * factor)


RULES: Mapping[str, Rule] = {
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Flatten": _flatten,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
