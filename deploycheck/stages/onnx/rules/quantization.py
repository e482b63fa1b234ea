"""Quantised tensors: whole numbers on a scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from deploycheck.errors import DeploycheckError
from deploycheck.stages.onnx.graph import Node, Rule


def _quantize(node: Node, x: Any, scale: Any, zero: Any = None) -> Any:
    from onnx import helper

    to = node.attributes.get("output_dtype")
    dtype = zero.dtype if zero is not None else helper.tensor_dtype_to_np_dtype(to) if to else jnp.dtype("uint8")
    if not jnp.issubdtype(dtype, jnp.integer):
        raise DeploycheckError(f"the type {dtype} isn't supported")
    scale, zero = _along(node, x, scale), _along(node, x, zero)
    codes = jnp.round(x / scale) + (0 if zero is None else zero.astype(scale.dtype))
    limits = np.iinfo(dtype)
    return jnp.clip(codes, limits.min, limits.max).astype(dtype)


def _dequantize(node: Node, x: Any, scale: Any, zero: Any = None) -> Any:
    scale, zero = _along(node, x, scale), _along(node, x, zero)
    codes = jnp.asarray(x).astype(scale.dtype)
    return (codes if zero is None else codes - zero.astype(scale.dtype)) * scale


def _along(node: Node, x: Any, values: Any) -> Any:
    """Return scales as they are multiplied with ``x``: one, one for each place of an axis, or one for each block."""
    if values is None or values.size == 1:
        return values if values is None else jnp.reshape(values, ())
    axis = node.attributes["axis"] % x.ndim
    if values.ndim == 1:
        return jnp.reshape(values, [-1 if at == axis else 1 for at in range(x.ndim)])
    return jnp.repeat(values, node.attributes["block_size"], axis)[tuple(slice(each) for each in x.shape)]


RULES: Mapping[str, Rule] = {"DequantizeLinear": _dequantize, "QuantizeLinear": _quantize}
