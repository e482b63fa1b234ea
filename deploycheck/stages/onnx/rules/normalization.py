"""Normalisation layers, as they are in inference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import lax

from deploycheck.errors import DeploycheckError
from deploycheck.stages.onnx.graph import Node, Rule


def _batch(node: Node, x: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
    if node.attributes.get("training_mode"):
        raise DeploycheckError("it is in training mode", hint="export the model for inference")
    factor = scale * lax.rsqrt(jnp.asarray(variance) + node.attributes["epsilon"])
    return (x - _by_channel(mean, x)) * _by_channel(factor, x) + _by_channel(bias, x)


def _by_channel(values: Any, x: Any) -> Any:
    return jnp.reshape(values, (-1,) + (1,) * (x.ndim - 2))


def _layer(node: Node, x: Any, scale: Any, bias: Any = None) -> Any:
    """Normalise over the axes from ``axis`` on, in float32; return the result, the mean and the inverse deviation."""
    axes = tuple(range(node.attributes["axis"] % x.ndim, x.ndim))
    wide = jnp.asarray(x).astype(jnp.float32)
    mean = jnp.mean(wide, axes, keepdims=True)
    inverse = lax.rsqrt(jnp.var(wide, axes, keepdims=True) + node.attributes["epsilon"])
    result = ((wide - mean) * inverse).astype(x.dtype) * scale
    return (result if bias is None else result + bias), mean, inverse


def _rms(node: Node, x: Any, scale: Any) -> Any:
    axes = tuple(range(node.attributes["axis"] % x.ndim, x.ndim))
    wide = jnp.asarray(x).astype(jnp.float32)
    inverse = lax.rsqrt(jnp.mean(wide * wide, axes, keepdims=True) + node.attributes["epsilon"])
    return (wide * inverse).astype(x.dtype) * scale


def _standardized(x: Any, axes: tuple[int, ...], epsilon: float) -> Any:
    return (x - jnp.mean(x, axes, keepdims=True)) * lax.rsqrt(jnp.var(x, axes, keepdims=True) + epsilon)


def _instance(node: Node, x: Any, scale: Any, bias: Any) -> Any:
    result = _standardized(x, tuple(range(2, x.ndim)), node.attributes["epsilon"])
    return result * _by_channel(scale, x) + _by_channel(bias, x)


def _group(node: Node, x: Any, scale: Any, bias: Any) -> Any:
    """Normalise each group of channels. Before version 21 scale and bias are one for each group."""
    groups = node.attributes["num_groups"]
    apart = jnp.reshape(x, (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))
    result = jnp.reshape(_standardized(apart, tuple(range(2, apart.ndim)), node.attributes["epsilon"]), x.shape)
    if scale.shape[0] != x.shape[1]:
        scale, bias = (jnp.repeat(each, x.shape[1] // groups) for each in (scale, bias))
    return result * _by_channel(scale, x) + _by_channel(bias, x)


def _mean_variance(node: Node, x: Any) -> Any:
    return _standardized(x, tuple(node.attributes["axes"]), 1e-9)


def _lp(node: Node, x: Any) -> Any:
    axis = node.attributes["axis"]
    norm = jnp.linalg.norm(x, node.attributes["p"], axis, keepdims=True)
    return jnp.where(norm == 0, 0, x / jnp.where(norm == 0, 1, norm))


def _local_response(node: Node, x: Any) -> Any:
    """Divide by the squares of the channels around (Krizhevsky et al., 2012)."""
    settings, size = node.attributes, node.attributes["size"]
    around = [(0, 0)] * x.ndim
    around[1] = ((size - 1) // 2, size // 2)
    window = [1] * x.ndim
    window[1] = size
    squares = lax.reduce_window(x * x, 0.0, lax.add, window, [1] * x.ndim, around)
    return x / (settings["bias"] + settings["alpha"] / size * squares) ** settings["beta"]


RULES: Mapping[str, Rule] = {
    "BatchNormalization": _batch,
    "GroupNormalization": _group,
    "InstanceNormalization": _instance,
    "LRN": _local_response,
    "LayerNormalization": _layer,
    "LpNormalization": _lp,
    "MeanVarianceNormalization": _mean_variance,
    "RMSNormalization": _rms,
}
