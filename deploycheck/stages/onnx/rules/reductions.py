"""Operators that make one element of many: sums, means, extremes, and sums so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from deploycheck.stages.onnx.graph import Node, Rule
from deploycheck.stages.onnx.values import namespace, number, operands, sizes


def _reduction(reduce: Callable[..., Any]) -> Rule:
    """Return the rule of a reduction ``reduce(namespace, x, axis, keepdims)``.

    The axes are an attribute, or an input in later versions. Without axes all are reduced; with
    ``noop_with_empty_axes`` each element is reduced alone.
    """

    def rule(node: Node, x: Any, axes: Any = None) -> Any:
        given = node.attributes.get("axes") if axes is None else sizes(axes, "axes")
        none = () if node.attributes.get("noop_with_empty_axes") else None
        (x,) = operands(x)
        return reduce(namespace(x), x, axis=tuple(given) if given else none, keepdims=bool(node.attributes["keepdims"]))

    return rule


def _named(name: str) -> Callable[..., Any]:
    return lambda given, x, **where: getattr(given, name)(x, **where)


def _log_sum_exp(given: Any, x: Any, **where: Any) -> Any:
    del given
    return jax.nn.logsumexp(jnp.asarray(x), **where)


def _l2(given: Any, x: Any, **where: Any) -> Any:
    return given.sqrt(given.sum(x * x, **where))


def _arg(name: str) -> Rule:
    """Return the place of an extreme: the first of equals, or the last with ``select_last_index``."""

    def rule(node: Node, x: Any) -> Any:
        axis, keep = node.attributes["axis"], bool(node.attributes["keepdims"])
        x = jnp.asarray(x)
        if not node.attributes["select_last_index"]:
            return getattr(jnp, name)(x, axis, keepdims=keep)
        return x.shape[axis] - 1 - getattr(jnp, name)(jnp.flip(x, axis), axis, keepdims=keep)

    return rule


def _cumsum(node: Node, x: Any, axis: Any) -> Any:
    at = int(number(axis, "axis"))
    (x,) = operands(x)
    x = jnp.asarray(x)
    x = jnp.flip(x, at) if node.attributes["reverse"] else x
    summed = jnp.cumsum(x, at)
    summed = summed - x if node.attributes["exclusive"] else summed
    return jnp.flip(summed, at) if node.attributes["reverse"] else summed


RULES: Mapping[str, Rule] = {
    "ArgMax": _arg("argmax"),
    "ArgMin": _arg("argmin"),
    "CumSum": _cumsum,
    "ReduceL1": _reduction(lambda given, x, **where: given.sum(given.abs(x), **where)),
    "ReduceL2": _reduction(_l2),
    "ReduceLogSum": _reduction(lambda given, x, **where: given.log(given.sum(x, **where))),
    "ReduceLogSumExp": _reduction(_log_sum_exp),
    "ReduceMax": _reduction(_named("max")),
    "ReduceMean": _reduction(_named("mean")),
    "ReduceMin": _reduction(_named("min")),
    "ReduceProd": _reduction(_named("prod")),
    "ReduceSum": _reduction(_named("sum")),
    "ReduceSumSquare": _reduction(lambda given, x, **where: given.sum(x * x, **where)),
}
