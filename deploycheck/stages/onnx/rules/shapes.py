"""Operators that read a shape, or make an array of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deploycheck.stages.onnx.graph import Node, Rule
from deploycheck.stages.onnx.values import check_elements, known, namespace, number, operands, size, sizes


def of_sizes(shape: tuple[Any, ...]) -> np.ndarray:
    """Return sizes as a value of the graph."""
    found = np.empty(len(shape), object if any(map(jax.export.is_symbolic_dim, shape)) else np.int64)
    found[:] = shape
    return found


def _shape(node: Node, x: Any) -> Any:
    return of_sizes(tuple(x.shape)[node.attributes["start"] : node.attributes.get("end")])


def _size(node: Node, x: Any) -> Any:
    del node
    elements: Any = 1
    for each in x.shape:
        elements = elements * each
    return elements


def _constant_of_shape(node: Node, shape: Any) -> Any:
    value = node.attributes.get("value", np.zeros(1, np.float32))
    return _full(sizes(shape), value.reshape(()))


def _full(shape: tuple[Any, ...], value: np.ndarray) -> Any:
    fixed = not any(map(jax.export.is_symbolic_dim, check_elements(shape)))
    return np.broadcast_to(value, shape) if fixed else jnp.broadcast_to(jnp.asarray(value), shape)


def _range(node: Node, start: Any, limit: Any, delta: Any) -> Any:
    del node
    first, last, step = (known(each, "range").item() for each in (start, limit, delta))
    if any(map(jax.export.is_symbolic_dim, (first, last, step))):
        return jnp.arange(size(first), size(last), size(step))
    check_elements((int(abs((last - first) / step)),))
    return np.arange(first, last, step).astype(start.dtype)


def _expand(node: Node, x: Any, shape: Any) -> Any:
    """Broadcast both ways: an axis of size 1 takes the other's size."""
    del node
    wanted, given = sizes(shape), tuple(x.shape)
    rank = max(len(wanted), len(given))
    wanted = (1,) * (rank - len(wanted)) + wanted
    given = (1,) * (rank - len(given)) + given
    (x,) = operands(x)
    whole = check_elements(tuple(there if here == 1 else here for here, there in zip(given, wanted, strict=True)))
    fixed = not any(map(jax.export.is_symbolic_dim, whole))
    return (namespace(x) if fixed else jnp).broadcast_to(x, whole)


def _eye_like(node: Node, x: Any) -> Any:
    from onnx import helper

    to = node.attributes.get("dtype")
    dtype = helper.tensor_dtype_to_np_dtype(to) if to else x.dtype
    rows, columns = x.shape
    return np.eye(rows, columns, node.attributes["k"]).astype(dtype)


def _trilu(node: Node, x: Any, k: Any = None) -> Any:
    diagonal = 0 if k is None else number(k, "diagonal")
    given = namespace(x)
    return (given.triu if node.attributes["upper"] else given.tril)(x, diagonal)


def _identity(node: Node, x: Any) -> Any:
    del node
    return x


def _dropout(node: Node, x: Any, ratio: Any = None, training: Any = None) -> Any:
    """Return the input: a file is taken as it is in inference."""
    del ratio
    if training is not None and number(training, "mode"):
        raise ValueError("it is in training mode; export the model for inference")
    return (x, jnp.ones(x.shape, bool)) if len(node.outputs) > 1 else x


RULES: Mapping[str, Rule] = {
    "ConstantOfShape": _constant_of_shape,
    "Dropout": _dropout,
    "Expand": _expand,
    "EyeLike": _eye_like,
    "Identity": _identity,
    "Range": _range,
    "Shape": _shape,
    "Size": _size,
    "Trilu": _trilu,
}
