"""Evaluating a traced program by rules: a jaxpr equation by equation, with the bodies of its calls, loops and branches.

``Rules`` say what is done at an equation. A value of the program is an array, or what the rules use in place of one.
Where a body has no primitive that the rules know, its equation is evaluated as a whole, on plain arrays: so a custom
derivative, or a loop, stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import jax
from jax.extend import core

from deploycheck.stages.network import Inputs

Answer = TypeVar("Answer")
"""What a traced function returns: a pytree of arrays."""

CALLS = frozenset(
    {"jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "remat", "remat2", "checkpoint"}
)
"""Primitives with the same operands and results as their body (``jax.checkpoint`` is ``remat2`` from JAX 0.10 on)."""


class Rules(Protocol):
    """What is done at the equations of a program; values are arrays, or what the rules use in place of arrays."""

    primitives: frozenset[str]

    def plain(self, value: Any) -> Any:
        """Return a value as an array, for equations without a rule."""

    def apply(self, equation: Any, operands: Sequence[Any]) -> Any:
        """Return what an equation whose primitive is among ``primitives`` gives: one value, or a sequence of them.

        As its primitive does: see ``multiple_results``.
        """

    def unstack(self, value: Any) -> tuple[Any, Callable[[Any], Any]]:
        """Return how a loop takes a value apart along its first axis.

        A pytree of arrays that all have this axis, and the function that makes the value in the loop's body from
        such a pytree without it.
        """


def evaluate(
    function: Callable[[Mapping[str, Any], Inputs], Answer],
    shapes: Mapping[str, Any],
    weights: Mapping[str, Any],
    inputs: Inputs,
    rules: Rules,
) -> Answer:
    """Trace ``function(shapes, inputs)`` and evaluate the trace on ``weights`` by the rules.

    ``shapes`` are shapes and dtypes of the weights as the function takes them, by the same names as ``weights``.
    """
    closed, answer = jax.make_jaxpr(function, return_shape=True)(dict(shapes), dict(inputs))
    arguments = [weights[name] for name in sorted(weights)] + [inputs[name] for name in sorted(inputs)]
    results = _evaluate(closed, arguments, rules)
    given: Answer = jax.tree.unflatten(jax.tree.structure(answer), [rules.plain(result) for result in results])
    return given


def rewritten(function: Callable[..., Any], rules: Rules) -> Callable[..., Any]:
    """Return a function of the same arguments, pytrees of arrays, that is ``function`` evaluated by the rules."""

    def rewrite(*arguments: Any) -> Any:
        closed, answer = jax.make_jaxpr(function, return_shape=True)(*arguments)
        results = _evaluate(closed, jax.tree.leaves(arguments), rules)
        return jax.tree.unflatten(jax.tree.structure(answer), [rules.plain(result) for result in results])

    return rewrite


def bind(equation: Any, operands: Sequence[Any]) -> Any:
    """Return the results of an equation's own primitive for these operands."""
    return equation.primitive.bind(*operands, **equation.primitive.get_bind_params(equation.params))


def called(equation: Any) -> core.ClosedJaxpr:
    """Return the body of an equation whose primitive is one of ``CALLS``."""
    body = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    return body if isinstance(body, core.ClosedJaxpr) else core.ClosedJaxpr(body, ())


def _evaluate(program: core.ClosedJaxpr, arguments: Sequence[Any], rules: Rules) -> list[Any]:
    jaxpr = program.jaxpr
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, program.consts, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, core.Literal) else values[variable]

    for equation in jaxpr.eqns:
        results = _results(equation, [read(variable) for variable in equation.invars], rules)
        values.update(zip(equation.outvars, results, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _results(equation: Any, operands: Sequence[Any], rules: Rules) -> Sequence[Any]:
    name = equation.primitive.name
    if name in _ENTERED and name not in rules.primitives and any(_knows(rules, it) for it in _bodies(equation)):
        return _ENTERED[name](equation, operands, rules)
    if name in rules.primitives:
        results = rules.apply(equation, operands)
    else:
        results = bind(equation, [rules.plain(operand) for operand in operands])
    return results if equation.primitive.multiple_results else [results]


def _knows(rules: Rules, program: core.ClosedJaxpr) -> bool:
    """Whether a program has an equation with a rule, at any depth."""
    return any(
        equation.primitive.name in rules.primitives or any(_knows(rules, body) for body in _bodies(equation))
        for equation in program.jaxpr.eqns
    )


def _bodies(equation: Any) -> Iterator[core.ClosedJaxpr]:
    """Yield the programs among an equation's parameters."""
    for parameter in equation.params.values():
        for program in parameter if isinstance(parameter, tuple) else (parameter,):
            if isinstance(program, core.ClosedJaxpr):
                yield program
            elif isinstance(program, core.Jaxpr):
                yield core.ClosedJaxpr(program, ())


def _call(equation: Any, operands: Sequence[Any], rules: Rules) -> list[Any]:
    """Evaluate a call in place. Of a custom derivative this is the function itself, without its derivative."""
    return _evaluate(called(equation), operands, rules)


def _scan(equation: Any, operands: Sequence[Any], rules: Rules) -> list[Any]:
    known = equation.params
    body, constants, count = known["jaxpr"], known["num_consts"], known["num_carry"]
    fixed, initial, stacked = (
        operands[:constants],
        operands[constants : constants + count],
        operands[constants + count :],
    )
    carry = _Carry(initial, body.jaxpr.invars[constants : constants + count], body.jaxpr.outvars[:count], rules)
    parts = [rules.unstack(value) for value in stacked]

    def step(varying: list[Any], slices: list[Any]) -> tuple[list[Any], list[Any]]:
        elements = [make(piece) for (_, make), piece in zip(parts, slices, strict=True)]
        results = _evaluate(body, [*fixed, *carry.whole(varying), *elements], rules)
        return carry.varying(results[:count]), [rules.plain(result) for result in results[count:]]

    last, collected = jax.lax.scan(
        step,
        carry.varying(initial),
        [arrays for arrays, _ in parts],
        length=known["length"],
        reverse=known["reverse"],
        unroll=known["unroll"],
    )
    return [*carry.whole(last), *collected]


def _while(equation: Any, operands: Sequence[Any], rules: Rules) -> list[Any]:
    known = equation.params
    condition, body = known["cond_jaxpr"], known["body_jaxpr"]
    split = known["cond_nconsts"]
    start = split + known["body_nconsts"]
    tested, fixed, initial = operands[:split], operands[split:start], operands[start:]
    carry = _Carry(initial, body.jaxpr.invars[len(fixed) :], body.jaxpr.outvars, rules)

    def goes_on(varying: Sequence[Any]) -> Any:
        return rules.plain(_evaluate(condition, [*tested, *carry.whole(varying)], rules)[0])

    def step(varying: Sequence[Any]) -> Sequence[Any]:
        return carry.varying(_evaluate(body, [*fixed, *carry.whole(varying)], rules))

    return carry.whole(jax.lax.while_loop(goes_on, step, carry.varying(initial)))


class _Carry:
    """What a loop hands from one turn to the next. What no turn changes stays as it was given: it may be a weight."""

    def __init__(self, initial: Sequence[Any], taken: Sequence[Any], given: Sequence[Any], rules: Rules) -> None:
        self._initial = initial
        self._rules = rules
        self._changes = [before is not after for before, after in zip(taken, given, strict=True)]

    def varying(self, values: Sequence[Any]) -> list[Any]:
        """Return the values that the turns change, as arrays."""
        return [self._rules.plain(value) for value, changes in zip(values, self._changes, strict=True) if changes]

    def whole(self, varying: Sequence[Any]) -> list[Any]:
        """Return all values: those that the turns change, and the others as they were given."""
        changed = iter(varying)
        return [next(changed) if it else value for value, it in zip(self._initial, self._changes, strict=True)]


def _cond(equation: Any, operands: Sequence[Any], rules: Rules) -> Sequence[Any]:
    index, *given = operands
    if equation.params.get("branches_platforms"):  # each is for another kind of device: only JAX can choose
        whole: Sequence[Any] = bind(equation, [rules.plain(operand) for operand in operands])
        return whole

    def branch(body: core.ClosedJaxpr) -> Callable[[], list[Any]]:
        return lambda: [rules.plain(result) for result in _evaluate(body, given, rules)]

    results: list[Any] = jax.lax.switch(rules.plain(index), [branch(body) for body in equation.params["branches"]])
    return results


_ENTERED: Mapping[str, Callable[[Any, Sequence[Any], Rules], Sequence[Any]]] = {
    **dict.fromkeys(CALLS, _call),
    "scan": _scan,
    "while": _while,
    "cond": _cond,
}
"""How the primitives with a body are evaluated where a rule is needed inside."""
