"""Activations: what follows a layer, element by element or along an axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from deploycheck.stages.onnx.graph import Node, Rule


def _function(name: str) -> Rule:
    """Return the rule of an activation that is a function of ``jax.nn`` with nothing to set."""

    def rule(node: Node, x: Any) -> Any:
        del node
        return getattr(jax.nn, name)(jnp.asarray(x))

    return rule


def _erf(node: Node, x: Any) -> Any:
    del node
    return lax.erf(jnp.asarray(x))


def _gelu(node: Node, x: Any) -> Any:
    return jax.nn.gelu(jnp.asarray(x), approximate=node.attributes["approximate"] == "tanh")


def _leaky_relu(node: Node, x: Any) -> Any:
    return jnp.where(x >= 0, x, node.attributes["alpha"] * x)


def _prelu(node: Node, x: Any, slope: Any) -> Any:
    del node
    return jnp.where(x >= 0, x, slope * x)


def _elu(node: Node, x: Any) -> Any:
    return jax.nn.elu(jnp.asarray(x), node.attributes["alpha"])


def _celu(node: Node, x: Any) -> Any:
    return jax.nn.celu(jnp.asarray(x), node.attributes["alpha"])


def _selu(node: Node, x: Any) -> Any:
    return node.attributes["gamma"] * jax.nn.elu(jnp.asarray(x), node.attributes["alpha"])


def _hard_sigmoid(node: Node, x: Any) -> Any:
    return jnp.clip(node.attributes["alpha"] * x + node.attributes["beta"], 0, 1)


def _hard_swish(node: Node, x: Any) -> Any:
    del node
    return x * jnp.clip(x / 6 + 0.5, 0, 1)


def _swish(node: Node, x: Any) -> Any:
    return x * jax.nn.sigmoid(node.attributes["alpha"] * x)


def _thresholded_relu(node: Node, x: Any) -> Any:
    return jnp.where(x > node.attributes["alpha"], x, 0)


def _along_axis(name: str) -> Rule:
    def rule(node: Node, x: Any) -> Any:
        return getattr(jax.nn, name)(jnp.asarray(x), axis=node.attributes["axis"])

    return rule


def _hardmax(node: Node, x: Any) -> Any:
    axis = node.attributes["axis"]
    return jax.nn.one_hot(jnp.argmax(x, axis), x.shape[axis], axis=axis, dtype=x.dtype)


RULES: Mapping[str, Rule] = {
    **{op: _function(op.lower()) for op in ("Relu", "Sigmoid", "Softplus", "Mish")},
    "Celu": _celu,
    "Elu": _elu,
    "Erf": _erf,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Hardmax": _hardmax,
    "LeakyRelu": _leaky_relu,
    "LogSoftmax": _along_axis("log_softmax"),
    "PRelu": _prelu,
    "Selu": _selu,
    "Softmax": _along_axis("softmax"),
    "Softsign": _function("soft_sign"),
    "Swish": _swish,
    "ThresholdedRelu": _thresholded_relu,
}
