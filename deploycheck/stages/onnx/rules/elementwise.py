"""Arithmetic, comparisons and conversions, element by element, with NumPy's broadcasting (which is ONNX's)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import max_dim, min_dim

from deploycheck.errors import DeploycheckError
from deploycheck.stages.onnx.graph import Node, Rule
from deploycheck.stages.onnx.values import array, dtype_of, is_known, namespace, operands

UNARY: Mapping[str, str] = {
    "Abs": "abs",
    "Acos": "arccos",
    "Acosh": "arccosh",
    "Asin": "arcsin",
    "Asinh": "arcsinh",
    "Atan": "arctan",
    "Atanh": "arctanh",
    "BitwiseNot": "invert",
    "Ceil": "ceil",
    "Cos": "cos",
    "Cosh": "cosh",
    "Exp": "exp",
    "Floor": "floor",
    "IsNaN": "isnan",
    "Log": "log",
    "Neg": "negative",
    "Not": "logical_not",
    "Round": "round",  # both take the even one of two that are as near
    "Sign": "sign",
    "Sin": "sin",
    "Sinh": "sinh",
    "Sqrt": "sqrt",
    "Tan": "tan",
    "Tanh": "tanh",
}
BINARY: Mapping[str, str] = {
    "Add": "add",
    "And": "logical_and",
    "BitwiseAnd": "bitwise_and",
    "BitwiseOr": "bitwise_or",
    "BitwiseXor": "bitwise_xor",
    "Equal": "equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
    "Less": "less",
    "LessOrEqual": "less_equal",
    "Mul": "multiply",
    "Or": "logical_or",
    "Sub": "subtract",
    "Sum": "add",
    "Xor": "logical_xor",
}
"""Operators of two operands by NumPy's functions; those that take any number of them are this one after another."""


def _by_name(name: str) -> Rule:
    def rule(node: Node, *values: Any) -> Any:
        del node
        given = operands(*values)
        return functools.reduce(getattr(namespace(*given), name), given)

    return rule


def _extreme(name: str, of_sizes: Callable[[Any, Any], Any]) -> Rule:
    """Return the rule of ``Max`` or ``Min``. Which of two sizes is the larger one may depend on the batch."""
    of_known, of_arrays = np.frompyfunc(of_sizes, 2, 1), _by_name(name)

    def rule(node: Node, *values: Any) -> Any:
        has_sizes = namespace(*values) is np and any(value.dtype == object for value in values)
        return functools.reduce(of_known, values) if has_sizes else of_arrays(node, *values)

    return rule


def _unary(name: str) -> Rule:
    def rule(node: Node, x: Any) -> Any:
        del node
        return getattr(namespace(x), name)(x)

    return rule


def _mean(node: Node, *values: Any) -> Any:
    return _by_name("add")(node, *values) / np.float32(len(values))


def _div(node: Node, a: Any, b: Any) -> Any:
    """Divide; whole numbers are rounded towards zero. Sizes are not negative."""
    del node
    a, b = operands(a, b)
    if not is_known(a) or not is_known(b):
        if jnp.issubdtype(a.dtype, jnp.integer):
            return lax.div(*jnp.broadcast_arrays(jnp.asarray(a), jnp.asarray(b)))
        return jnp.divide(a, b)
    if a.dtype == object or b.dtype == object:
        return np.floor_divide(a, b)
    if np.issubdtype(a.dtype, np.integer):
        return (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)
    return np.divide(a, b)


def _mod(node: Node, a: Any, b: Any) -> Any:
    """Return the remainder: with the sign of ``b``, or by ``fmod`` with that of ``a``."""
    a, b = operands(a, b)
    given = namespace(a, b)
    return given.fmod(a, b) if node.attributes["fmod"] else given.mod(a, b)


def _pow(node: Node, x: Any, exponent: Any) -> Any:
    """Return a power; a known whole exponent is one of its own, whose gradient is exact at zero too."""
    del node
    x, exponent = operands(x, exponent)
    if not is_known(x) and is_known(exponent) and exponent.size == 1 and float(exponent.item()).is_integer():
        shape = jnp.broadcast_shapes(x.shape, exponent.shape)
        return jnp.broadcast_to(x ** int(exponent.item()), shape)
    return namespace(x, exponent).power(x, exponent).astype(x.dtype)


def _reciprocal(node: Node, x: Any) -> Any:
    del node
    return 1 / x


def _clip(node: Node, x: Any, low: Any = None, high: Any = None) -> Any:
    del node
    x = x if low is None else namespace(x, low).maximum(x, low)
    return x if high is None else namespace(x, high).minimum(x, high)


def _where(node: Node, condition: Any, a: Any, b: Any) -> Any:
    del node
    condition, a, b = operands(condition, a, b)
    return namespace(condition, a, b).where(condition, a, b)


def _is_inf(node: Node, x: Any) -> Any:
    given = namespace(x)
    found = given.isinf(x)
    if not node.attributes["detect_negative"]:
        found = found & (x > 0)
    return found if node.attributes["detect_positive"] else found & (x < 0)


def _bit_shift(node: Node, a: Any, b: Any) -> Any:
    given = namespace(a, b)
    return (given.left_shift if node.attributes["direction"] == "LEFT" else given.right_shift)(a, b)


def _cast(node: Node, x: Any) -> Any:
    from onnx import helper

    return _converted(x, helper.tensor_dtype_to_np_dtype(node.attributes["to"]))


def _cast_like(node: Node, x: Any, like: Any) -> Any:
    del node
    return _converted(x, dtype_of(like))


def _converted(x: Any, dtype: np.dtype[Any]) -> Any:
    """Return a value in another type; sizes stay what they are in any type of whole numbers."""
    if dtype.kind not in "biufV":
        raise DeploycheckError("only numbers can be converted")
    if is_known(x) and x.dtype == object:
        return x if dtype.kind in "iu" else array(x).astype(_in_jax(dtype))
    if is_known(x):
        return x.astype(dtype)
    return x != 0 if dtype.kind == "b" else x.astype(_in_jax(dtype))


def _in_jax(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(jax.dtypes.canonicalize_dtype(dtype))


RULES: Mapping[str, Rule] = {
    **{op: _unary(name) for op, name in UNARY.items()},
    **{op: _by_name(name) for op, name in BINARY.items()},
    "BitShift": _bit_shift,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Clip": _clip,
    "Div": _div,
    "IsInf": _is_inf,
    "Max": _extreme("maximum", max_dim),
    "Mean": _mean,
    "Min": _extreme("minimum", min_dim),
    "Mod": _mod,
    "Pow": _pow,
    "Reciprocal": _reciprocal,
    "Where": _where,
}
