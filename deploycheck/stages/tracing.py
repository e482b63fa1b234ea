"""Evaluating a traced program: a jaxpr equation by equation, with the bodies of its calls.

``Rules`` say what is done at an equation. Quantisation is two such sets of rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
from jax.extend import core

from deploycheck.stages.network import Inputs, Outputs

CALLS = frozenset({"jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "remat", "remat2", "checkpoint"})
"""Primitives with the same operands and results as their body (``jax.checkpoint`` is ``remat2`` from JAX 0.10 on)."""


class Rules(Protocol):
    """What is done at the equations of a program; values are arrays, or what the rules use in place of arrays."""

    primitives: frozenset[str]

    def plain(self, value: Any) -> Any:
        """Return a value as an array, for equations without a rule."""

    def apply(self, equation: Any, operands: Sequence[Any]) -> Any:
        """Return the one result of an equation whose primitive is among ``primitives``."""


def evaluate(
    function: Callable[[Mapping[str, Any], Inputs], Outputs],
    shapes: Mapping[str, Any],
    weights: Mapping[str, Any],
    inputs: Inputs,
    rules: Rules,
) -> Outputs:
    """Trace ``function(shapes, inputs)`` and evaluate the trace on ``weights`` by the rules.

    ``shapes`` are shapes and dtypes of the weights as the function takes them, by the same names as ``weights``.
    """
    closed, answer = jax.make_jaxpr(function, return_shape=True)(dict(shapes), dict(inputs))
    arguments = [weights[name] for name in sorted(weights)] + [inputs[name] for name in sorted(inputs)]
    results = _evaluate(closed.jaxpr, closed.consts, arguments, rules)
    outputs: Outputs = jax.tree.unflatten(jax.tree.structure(answer), [rules.plain(result) for result in results])
    return outputs


def _evaluate(jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any], rules: Rules) -> list[Any]:
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, constants, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))
    for equation in jaxpr.eqns:
        operands = [v.val if isinstance(v, core.Literal) else values[v] for v in equation.invars]
        inner = _called(equation)
        if equation.primitive.name in rules.primitives:
            results = [rules.apply(equation, operands)]
        elif inner is not None:
            results = _evaluate(inner.jaxpr, inner.consts, operands, rules)
        else:
            result = bind(equation, [rules.plain(operand) for operand in operands])
            results = result if equation.primitive.multiple_results else [result]
        values.update(zip(equation.outvars, results, strict=True))
    return [v.val if isinstance(v, core.Literal) else values[v] for v in jaxpr.outvars]


def _called(equation: Any) -> core.ClosedJaxpr | None:
    """Return the body of a call, or None for other equations."""
    if equation.primitive.name not in CALLS:
        return None
    inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    return inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, ())


def bind(equation: Any, operands: Sequence[Any]) -> Any:
    """Return the results of an equation's own primitive for these operands."""
    return equation.primitive.bind(*operands, **equation.primitive.get_bind_params(equation.params))
