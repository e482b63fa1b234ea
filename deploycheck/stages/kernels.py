"""Which weights are the kernels of a model: operands of its matrix products and convolutions.

A weight is followed through the traced program: through transposes, casts and reshapes, into calls, loops and branches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from deploycheck.stages.model import Model, flatten
from deploycheck.stages.tracing import CALLS

Axes = tuple[int | None, ...]
"""For each axis of a value, the weight's axis that it is; None where it is none, or part of one."""


@dataclass(frozen=True)
class _Weight:
    """A weight as a value in the program."""

    name: str
    axes: Axes


Values = list[_Weight | None]


def find_kernels(model: Model) -> dict[str, int | None]:
    """Return the floating weights of two or more axes that are operands of a product, by name, in the model's order.

    The value is the axis that is summed over: for a convolution that of the input channels, None where the product
    doesn't sum over a whole axis of the weight.
    """
    leaves = flatten(model.params)[0]
    closed = jax.make_jaxpr(model.apply)(model.params, model.state, dict(model.inputs))
    weights: Values = [_Weight(name, tuple(range(leaf.ndim))) for name, leaf in leaves.items()]
    rest: Values = [None] * (len(closed.jaxpr.invars) - len(weights))
    found: dict[str, int | None] = {}
    _walk(closed.jaxpr, weights + rest, found)
    kernels = {name for name in found if leaves[name].ndim >= 2 and jnp.issubdtype(leaves[name].dtype, jnp.floating)}
    return {name: found[name] for name in leaves if name in kernels}


def _walk(jaxpr: Any, arguments: Sequence[_Weight | None], found: dict[str, int | None]) -> Values:
    """Add the operands of products to ``found``; return what is known of the results."""
    values: dict[Any, _Weight | None] = dict(zip(jaxpr.invars, arguments, strict=True))
    for equation in jaxpr.eqns:
        operands = [None if isinstance(v, core.Literal) else values.get(v) for v in equation.invars]
        values.update(zip(equation.outvars, _results(equation, operands, found), strict=True))
    return [None if isinstance(v, core.Literal) else values.get(v) for v in jaxpr.outvars]


def _results(equation: Any, operands: Values, found: dict[str, int | None]) -> Values:
    name, params = equation.primitive.name, equation.params
    unknown: Values = [None] * len(equation.outvars)
    if name in SUMMED:
        for operand, axis in zip(operands, SUMMED[name](params), strict=True):
            if operand is not None:
                found.setdefault(operand.name, None if axis is None else operand.axes[axis])
        return unknown
    if name in CALLS:
        inner = params.get("jaxpr", params.get("call_jaxpr"))
        return _walk(getattr(inner, "jaxpr", inner), operands, found)
    for body, arguments in _bodies(name, params, operands):
        _walk(body.jaxpr, arguments, found)
    weight = operands[0] if operands else None
    if weight is None or name not in MOVED:
        return unknown
    return [replace(weight, axes=MOVED[name](weight.axes, equation))]


def _bodies(name: str, params: Mapping[str, Any], operands: Values) -> list[tuple[Any, Values]]:
    """Return the bodies of loops and branches, with what is known of their arguments."""
    match name:
        case "scan":
            first = params["num_consts"] + params["num_carry"]
            carried: Values = [None] * params["num_carry"]
            slices: Values = [each and replace(each, axes=each.axes[1:]) for each in operands[first:]]
            return [(params["jaxpr"], operands[: params["num_consts"]] + carried + slices)]
        case "while":
            test, body = params["cond_nconsts"], params["body_nconsts"]
            loop: Values = [None] * (len(operands) - test - body)
            return [(params["body_jaxpr"], operands[test : test + body] + loop)]
        case "cond":
            return [(branch, operands[1:]) for branch in params["branches"]]
    return []


def _summed_by_dot(params: Mapping[str, Any]) -> list[int | None]:
    contracted, _ = params["dimension_numbers"]
    return [axes[-1] if axes else None for axes in contracted]


def _summed_by_convolution(params: Mapping[str, Any]) -> list[int | None]:
    numbers = params["dimension_numbers"]
    return [numbers.lhs_spec[1], numbers.rhs_spec[1]]


def _reshaped(axes: Axes, equation: Any) -> Axes:
    """Return the axes before the first that is split or merged, and those after the last."""
    before, after = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    shorter = min(len(before), len(after))
    head = next((i for i in range(shorter) if before[i] != after[i]), shorter)
    tail = next((i for i in range(shorter - head) if before[-1 - i] != after[-1 - i]), shorter - head)
    return axes[:head] + (None,) * (len(after) - head - tail) + axes[len(before) - tail :]


def _broadcast(axes: Axes, equation: Any) -> Axes:
    where = {out: axes[i] for i, out in enumerate(equation.params["broadcast_dimensions"])}
    return tuple(where.get(axis) for axis in range(equation.outvars[0].aval.ndim))


SUMMED: Mapping[str, Callable[[Mapping[str, Any]], list[int | None]]] = {
    "dot_general": _summed_by_dot,
    "conv_general_dilated": _summed_by_convolution,
}
"""The products: which axis of each operand they sum over."""
MOVED: Mapping[str, Callable[[Axes, Any], Axes]] = {
    "transpose": lambda axes, equation: tuple(axes[axis] for axis in equation.params["permutation"]),
    "squeeze": lambda axes, equation: tuple(
        axis for i, axis in enumerate(axes) if i not in equation.params["dimensions"]
    ),
    "broadcast_in_dim": _broadcast,
    "reshape": _reshaped,
    **dict.fromkeys(("convert_element_type", "copy", "stop_gradient"), lambda axes, _: axes),
}
"""What leaves a weight's numbers as they are, and moves its axes."""
