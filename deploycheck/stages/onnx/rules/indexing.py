"""Operators that look elements up, or put them in, by computed indices. Negative indices count from the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deploycheck.stages.onnx.graph import Node, Rule
from deploycheck.stages.onnx.values import is_known, namespace, number, operands, size


def _gather(node: Node, x: Any, indices: Any) -> Any:
    """Look rows of an axis up; a known single index is a slice."""
    axis = node.attributes["axis"]
    if is_known(x) and is_known(indices):
        return np.take(x, indices.astype(np.int64), axis)
    x, indices = operands(x, indices)
    if is_known(indices) and indices.ndim == 0:
        return lax.index_in_dim(jnp.asarray(x), int(indices), axis, keepdims=False)
    return jnp.take(jnp.asarray(x), indices, axis)


def _gather_elements(node: Node, x: Any, indices: Any) -> Any:
    x, indices = operands(x, indices)
    return namespace(x, indices).take_along_axis(x, indices, node.attributes["axis"])


def _gather_nd(node: Node, x: Any, indices: Any) -> Any:
    def gather(x: Any, indices: Any) -> Any:
        return x[tuple(jnp.moveaxis(indices, -1, 0))]

    for _ in range(node.attributes["batch_dims"]):
        gather = jax.vmap(gather)
    return gather(jnp.asarray(x), jnp.asarray(indices))


def _scatter_nd(node: Node, x: Any, indices: Any, updates: Any) -> Any:
    """Put slices into an array; a known result stays known."""
    how = node.attributes["reduction"]
    if namespace(x, indices, updates) is np and how == "none":
        copy = np.array(x)
        copy[tuple(np.moveaxis(indices, -1, 0))] = updates
        return copy
    x, indices, updates = operands(x, indices, updates)
    return _update(jnp.asarray(x).at[tuple(jnp.moveaxis(jnp.asarray(indices), -1, 0))], updates, how)


def _scatter_elements(node: Node, x: Any, indices: Any, updates: Any) -> Any:
    axis = node.attributes["axis"] % x.ndim
    places = list(jnp.indices(indices.shape, sparse=True))
    places[axis] = jnp.asarray(indices)
    return _update(jnp.asarray(x).at[tuple(places)], updates, node.attributes["reduction"])


def _update(at: Any, updates: Any, how: str) -> Any:
    put = {"none": at.set, "add": at.add, "mul": at.multiply, "min": at.min, "max": at.max}[how]
    return put(updates)


def _one_hot(node: Node, indices: Any, depth: Any, values: Any) -> Any:
    count = size(number(depth, "depth"))
    whole = jnp.asarray(indices).astype(jnp.int32)
    hot = jax.nn.one_hot(jnp.where(whole < 0, whole + count, whole), count, axis=node.attributes["axis"], dtype=bool)
    return jnp.where(hot, values[1], values[0])


def _top_k(node: Node, x: Any, k: Any) -> Any:
    """Return the largest (or smallest) along an axis, in order, and where they are."""
    axis, count = node.attributes["axis"], size(number(k, "number of results"))
    given = jnp.moveaxis(jnp.asarray(x), axis, -1)
    turned = jnp.negative if jnp.issubdtype(given.dtype, jnp.floating) else jnp.invert  # which can't overflow
    if node.attributes["largest"]:
        values, places = lax.top_k(given, count)
    else:
        values, places = lax.top_k(turned(given), count)
        values = turned(values)
    return jnp.moveaxis(values, -1, axis), jnp.moveaxis(places, -1, axis)


RULES: Mapping[str, Rule] = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "OneHot": _one_hot,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TopK": _top_k,
}
