"""Arithmetic on each number, comparisons and choices.

Where JAX says what comes of NaN or of a division by zero, the rules say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from deploycheck.serving.runtimes._onnx_graph import Graph, Rule, Tensor
from deploycheck.serving.runtimes._onnx_types import BOOL, FLOAT, INT32, INT64, NotInOnnx

WIDER: Mapping[str, np.dtype[Any]] = {
    **dict.fromkeys(("bool", "int8", "int16", "uint8", "uint16"), INT32),
    "uint32": INT64,
}
"""Integers that runtimes have few operators for, and the type they are computed in."""


def like(graph: Graph, number: float, tensor: Tensor) -> Tensor:
    """Return a number as a constant of a tensor's type."""
    return graph.constant(number, tensor.dtype)


def wide(graph: Graph, *tensors: Tensor) -> list[Tensor]:
    """Return integers in a type that there is arithmetic for, and anything else as it is."""
    for tensor in tensors:
        if tensor.dtype.name == "uint64":
            raise NotInOnnx("arithmetic on uint64")
    return [graph.cast(tensor, WIDER.get(tensor.dtype.name, tensor.dtype)) for tensor in tensors]


def of_operands(function: Callable[..., Tensor]) -> Rule:
    """Return the rule of a primitive of which ``function(graph, *operands)`` needs no more than the operands."""

    def rule(graph: Graph, equation: Any, *operands: Tensor) -> Tensor:
        del equation
        return function(graph, *operands)

    return rule


def apply(op: str, graph: Graph, *operands: Tensor) -> Tensor:
    """Return the result of an ONNX operator, in the operands' type."""
    return graph.cast(graph.add(op, *wide(graph, *operands)), operands[0].dtype)


def in_float32(op: str, graph: Graph, x: Tensor) -> Tensor:
    """Return the result of an ONNX operator that runtimes have for float32 alone."""
    return graph.cast(graph.add(op, graph.cast(x, FLOAT)), x.dtype)


def compare(op: str, graph: Graph, *operands: Tensor) -> Tensor:
    """Return the result of a comparison."""
    return graph.add(op, *wide(graph, *operands), dtype=BOOL)


def differ(graph: Graph, *operands: Tensor) -> Tensor:
    """Return whether numbers are not equal."""
    return graph.add("Not", compare("Equal", graph, *operands))


def bitwise(op: str, graph: Graph, *operands: Tensor) -> Tensor:
    """Return ``And``, ``Or``, ``Xor`` or ``Not`` of bools, or of the bits of whole numbers."""
    return graph.add(op if operands[0].dtype == BOOL else f"Bitwise{op}", *operands)


def largest(graph: Graph, a: Tensor, b: Tensor) -> Tensor:
    """Return the larger of two numbers, NaN if one is."""
    if a.dtype == BOOL:
        return graph.add("Or", a, b)
    for one, other in ((a, b), (b, a)):
        if one.dtype == FLOAT and one.value is not None and not one.value.any():
            return graph.add("Relu", other)  # runtimes join it with the product before it
    return apply("Max", graph, a, b)


def smallest(graph: Graph, a: Tensor, b: Tensor) -> Tensor:
    """Return the smaller of two numbers, NaN if one is."""
    return graph.add("And", a, b) if a.dtype == BOOL else apply("Min", graph, a, b)


def div(graph: Graph, a: Tensor, b: Tensor) -> Tensor:
    """Divide; whole numbers towards zero, and by zero to -1 as XLA does.

    Where XLA multiplies by the reciprocal of a constant, so does this: numbers that are rounded afterwards, for a
    product in 8 bits, then become the same ones.
    """
    if a.dtype.kind == "f" and b.value is not None and b.value.size == 1 and b.value.all():
        return graph.add("Mul", a, graph.constant(1 / b.value))
    if a.dtype.kind == "f":
        return graph.add("Div", a, b)
    x, y = wide(graph, a, b)
    safe, by_zero = _without_zeros(graph, y)
    result = graph.add("Div", x, safe)
    if by_zero is not None:
        result = graph.add("Where", by_zero, like(graph, -1, x), result, dtype=x.dtype)
    return graph.cast(result, a.dtype)


def rem(graph: Graph, a: Tensor, b: Tensor) -> Tensor:
    """Return the rest of a division, with the sign of the dividend."""
    if a.dtype.kind == "f":
        return graph.add("Mod", a, b, fmod=1)
    x, y = wide(graph, a, b)
    safe, by_zero = _without_zeros(graph, y)
    result = graph.add("Mod", x, safe, fmod=1)
    return graph.cast(result if by_zero is None else graph.add("Where", by_zero, x, result, dtype=x.dtype), a.dtype)


def _without_zeros(graph: Graph, divisor: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return a divisor with ones for zeros, and where they were: a runtime may crash on a division by zero."""
    if divisor.value is not None and divisor.value.all():
        return divisor, None
    by_zero = graph.add("Equal", divisor, like(graph, 0, divisor), dtype=BOOL)
    return graph.add("Where", by_zero, like(graph, 1, divisor), divisor, dtype=divisor.dtype), by_zero


def log1p(graph: Graph, x: Tensor) -> Tensor:
    """Return log(1 + x), exact for small x (Kahan's form, as in Higham, Accuracy and Stability, 2002, 1.14)."""
    one = like(graph, 1, x)
    u = graph.add("Add", x, one)
    log = graph.add("Log", u)
    exact = graph.add("Mul", log, graph.add("Div", x, graph.add("Sub", u, one)))
    small = graph.add("Where", graph.add("Equal", u, one, dtype=BOOL), x, exact, dtype=x.dtype)
    return graph.add("Where", graph.add("Less", x, like(graph, 1e7, x), dtype=BOOL), small, log, dtype=x.dtype)


def expm1(graph: Graph, x: Tensor) -> Tensor:
    """Return exp(x) - 1, exact for small x (Kahan's form, as for ``log1p``)."""
    one = like(graph, 1, x)
    u = graph.add("Exp", x)
    less = graph.add("Sub", u, one)
    exact = graph.add("Div", graph.add("Mul", less, x), graph.add("Log", u))
    small = graph.add("Where", graph.add("Equal", u, one, dtype=BOOL), x, exact, dtype=x.dtype)
    near = graph.add("Less", graph.add("Abs", x), like(graph, 0.5, x), dtype=BOOL)
    return graph.add("Where", near, small, less, dtype=x.dtype)


def erfc(graph: Graph, x: Tensor) -> Tensor:
    """Return 1 - erf(x)."""
    return graph.add("Sub", like(graph, 1, x), in_float32("Erf", graph, x))


def exp2(graph: Graph, x: Tensor) -> Tensor:
    """Return 2 to the power of x."""
    return graph.add("Pow", like(graph, 2, x), x)


def square(graph: Graph, x: Tensor) -> Tensor:
    """Return x times x."""
    return apply("Mul", graph, x, x)


def integer_pow(graph: Graph, equation: Any, x: Tensor) -> Tensor:
    """Return a whole power, by as few products as its bits need."""
    exponent = equation.params["y"]
    (power,) = wide(graph, x)
    result, left = None, abs(exponent)
    while left:
        if left & 1:
            result = power if result is None else graph.add("Mul", result, power)
        left >>= 1
        if left:
            power = graph.add("Mul", power, power)
    one = like(graph, 1, power)
    if result is None:
        return like(graph, 1, x)
    return graph.cast(graph.add("Div", one, result) if exponent < 0 else result, x.dtype)


def rsqrt(graph: Graph, x: Tensor) -> Tensor:
    """Return 1 / sqrt(x)."""
    return graph.add("Div", like(graph, 1, x), graph.add("Sqrt", x))


def cbrt(graph: Graph, x: Tensor) -> Tensor:
    """Return the cube root, which has the sign of x."""
    root = graph.add("Pow", graph.add("Abs", x), like(graph, 1 / 3, x))
    return graph.add("Mul", graph.add("Sign", x), root)


def rounding(graph: Graph, equation: Any, x: Tensor) -> Tensor:
    """Round halves to even numbers, or away from zero."""
    if int(equation.params["rounding_method"]) == 1:
        return graph.add("Round", x)
    whole = graph.add("Floor", graph.add("Add", graph.add("Abs", x), like(graph, 0.5, x)))
    return graph.add("Mul", graph.add("Sign", x), whole)


def is_finite(graph: Graph, x: Tensor) -> Tensor:
    """Return whether a number is neither infinite nor NaN."""
    return graph.add("Less", graph.add("Abs", x), like(graph, np.inf, x), dtype=BOOL)


def power(graph: Graph, x: Tensor, y: Tensor) -> Tensor:
    """Return x to the power of y, which may be of another type."""
    base, exponent = wide(graph, x, y)
    return graph.cast(graph.add("Pow", base, exponent), x.dtype)


def shift(direction: str, graph: Graph, x: Tensor, by: Tensor) -> Tensor:
    """Shift the bits of whole numbers, and fill with zeros."""
    if x.dtype.name not in ("uint32", "int32"):
        raise NotInOnnx(f"of {x.dtype.name}")
    bits = [graph.cast(each, np.dtype("uint32")) for each in (x, by)]
    return graph.cast(graph.add("BitShift", *bits, direction=direction), x.dtype)


def shift_keeping_sign(graph: Graph, x: Tensor, by: Tensor) -> Tensor:
    """Shift the bits of whole numbers to the right, and fill with the sign."""
    negative = compare("Less", graph, x, like(graph, 0, x))
    flipped = graph.add("Where", negative, graph.add("BitwiseNot", x), x, dtype=x.dtype)
    shifted = shift("RIGHT", graph, flipped, by)
    return graph.add("Where", negative, graph.add("BitwiseNot", shifted), shifted, dtype=x.dtype)


def atan2(graph: Graph, y: Tensor, x: Tensor) -> Tensor:
    """Return the angle of a point, from -pi to pi."""
    angle = in_float32("Atan", graph, graph.add("Div", y, x))
    half_turn = graph.add(
        "Where",
        compare("Less", graph, y, like(graph, 0, y)),
        *(like(graph, s * np.pi, x) for s in (-1, 1)),
        dtype=x.dtype,
    )
    turned = graph.add(
        "Where", compare("Less", graph, x, like(graph, 0, x)), graph.add("Add", angle, half_turn), angle, dtype=x.dtype
    )
    origin = graph.add(
        "And", compare("Equal", graph, x, like(graph, 0, x)), compare("Equal", graph, y, like(graph, 0, y))
    )
    return graph.add("Where", origin, like(graph, 0, x), turned, dtype=x.dtype)


def clamp(graph: Graph, low: Tensor, x: Tensor, high: Tensor) -> Tensor:
    """Return x, but at least ``low`` and at most ``high``."""
    below, value, above = wide(graph, low, x, high)
    if not below.shape and not above.shape:
        return graph.cast(graph.add("Clip", value, below, above), x.dtype)
    return graph.cast(graph.add("Min", graph.add("Max", value, below), above), x.dtype)


def select_n(graph: Graph, which: Tensor, *cases: Tensor) -> Tensor:
    """Return from each place the number of the case that is named there."""
    if which.dtype == BOOL:
        if len(cases) == 1:
            return cases[0]
        return where(graph, which, cases[1], cases[0])
    result = cases[-1]
    for number in reversed(range(len(cases) - 1)):
        first = graph.add("LessOrEqual", which, like(graph, number, which), dtype=BOOL)
        result = where(graph, first, cases[number], result)
    return result


def where(graph: Graph, condition: Tensor, chosen: Tensor, other: Tensor) -> Tensor:
    """Return the chosen numbers where the condition holds, and the others elsewhere."""
    x, y = wide(graph, chosen, other) if chosen.dtype.name != "uint64" else (chosen, other)
    return graph.cast(graph.add("Where", condition, x, y, dtype=x.dtype), chosen.dtype)


def same(graph: Graph, equation: Any, *operands: Tensor) -> list[Tensor]:
    """Return the operands: the primitive only matters while a program is compiled, differentiated or distributed."""
    del graph, equation
    return list(operands)


SAME = ("copy", "copy_p", "device_put", "name", "optimization_barrier", "pvary", "sharding_constraint", "stop_gradient")
"""The primitives that change nothing about an answer."""
NAMES: Mapping[str, str] = {
    **{
        name: name.capitalize() for name in ("exp", "log", "tanh", "floor", "ceil", "sqrt", "abs", "sign", "sin", "cos")
    },
    **{name: name.capitalize() for name in ("add", "sub", "mul", "neg")},
    "add_any": "Add",
    "logistic": "Sigmoid",
}
"""The primitives that ONNX has an operator for, and its name there."""
NAMES_IN_FLOAT32: Mapping[str, str] = {
    name: name.capitalize()
    for name in ("tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "erf")
}
COMPARISONS: Mapping[str, str] = {
    "eq": "Equal",
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
}
FUNCTIONS: Mapping[str, Callable[..., Tensor]] = {
    **{name: partial(apply, op) for name, op in NAMES.items()},
    **{name: partial(in_float32, op) for name, op in NAMES_IN_FLOAT32.items()},
    **{name: partial(compare, op) for name, op in COMPARISONS.items()},
    **{name: partial(bitwise, name.capitalize()) for name in ("and", "or", "xor", "not")},
    "ne": differ,
    "erfc": erfc,
    "exp2": exp2,
    "log1p": log1p,
    "expm1": expm1,
    "rsqrt": rsqrt,
    "cbrt": cbrt,
    "square": square,
    "pow": power,
    "div": div,
    "rem": rem,
    "max": largest,
    "min": smallest,
    "clamp": clamp,
    "is_finite": is_finite,
    "shift_left": partial(shift, "LEFT"),
    "shift_right_logical": partial(shift, "RIGHT"),
    "select_n": select_n,
    "shift_right_arithmetic": shift_keeping_sign,
    "atan2": atan2,
}
RULES: Mapping[str, Rule] = {
    **{name: of_operands(function) for name, function in FUNCTIONS.items()},
    **dict.fromkeys(SAME, same),
    "integer_pow": integer_pow,
    "round": rounding,
}
