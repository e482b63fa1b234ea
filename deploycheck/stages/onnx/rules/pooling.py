"""Pooling: an extreme or a mean of each window, or of the whole image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from deploycheck.stages.onnx.graph import Node, Rule
from deploycheck.stages.onnx.rules.products import Padding, padding


def _max_pool(node: Node, x: Any) -> Any:
    x = jnp.asarray(x)
    lowest = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else np.iinfo(x.dtype).min
    pads, beyond = _pads(node, x)
    return _windows(node, x, np.array(lowest, x.dtype), lax.max, _sum(pads, beyond))


def _average_pool(node: Node, x: Any) -> Any:
    """Return the mean of each window. Padding counts with ``count_include_pad``; what ``ceil_mode`` adds never does."""
    x = jnp.asarray(x)
    pads, beyond = _pads(node, x)
    zero = np.zeros((), x.dtype)
    summed = _windows(node, x, zero, lax.add, _sum(pads, beyond))
    counted = np.ones((1, 1, *x.shape[2:]), x.dtype)
    if node.attributes["count_include_pad"]:
        counted, left = np.pad(counted, [(0, 0), (0, 0), *pads], constant_values=1), beyond
    else:
        left = _sum(pads, beyond)
    return summed / _counts(node, counted, left)


def _counts(node: Node, counted: np.ndarray, pads: Padding) -> np.ndarray:
    """Return how many elements each window has, with NumPy, so that it is a constant of the program."""
    padded = np.pad(counted, [(0, 0), (0, 0), *pads])
    window, strides, dilations = _window(node)
    spans = [(size - 1) * apart + 1 for size, apart in zip(window, dilations, strict=True)]
    axes = tuple(range(2, 2 + len(window)))
    views = np.lib.stride_tricks.sliding_window_view(padded, spans, axes)
    every = (slice(None), slice(None), *(slice(None, None, stride) for stride in strides))
    inner = tuple(slice(None, None, apart) for apart in dilations)
    counts: np.ndarray = views[(*every, *inner)].sum(axis=tuple(range(-len(window), 0)))
    return counts


def _window(node: Node) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    settings = node.attributes
    window = settings["kernel_shape"]
    ones = (1,) * len(window)
    return window, settings.get("strides") or ones, settings.get("dilations") or ones


def _pads(node: Node, x: Any) -> tuple[Padding, Padding]:
    """Return the padding of each axis, and what ``ceil_mode`` adds so that a last window begins within it."""
    window, strides, dilations = _window(node)
    pads = padding(node.attributes, x.shape[2:], window, strides, dilations)
    beyond = []
    for extent, size, stride, apart, (before, after) in zip(x.shape[2:], window, strides, dilations, pads, strict=True):
        left = extent + before + after - (size - 1) * apart - 1
        starts_after = (-(-left // stride)) * stride >= extent + before
        more = 0 if not node.attributes["ceil_mode"] or starts_after else -left % stride
        beyond.append((0, more))
    return pads, beyond


def _sum(pads: Padding, beyond: Padding) -> Padding:
    return [(before, after + more) for (before, after), (_, more) in zip(pads, beyond, strict=True)]


def _windows(node: Node, x: Any, neutral: Any, reduce: Any, pads: Padding) -> Any:
    window, strides, dilations = _window(node)
    whole = [(0, 0), (0, 0), *pads]
    return lax.reduce_window(x, neutral, reduce, (1, 1, *window), (1, 1, *strides), whole, None, (1, 1, *dilations))


def _over_image(name: str) -> Rule:
    def rule(node: Node, x: Any) -> Any:
        del node
        return getattr(jnp, name)(x, axis=tuple(range(2, x.ndim)), keepdims=True)

    return rule


RULES: Mapping[str, Rule] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _over_image("mean"),
    "GlobalMaxPool": _over_image("max"),
    "MaxPool": _max_pool,
}
