"""A model's program as a graph of values: which of them others are computed from, and what they are for given inputs.

So a method can take a value from inside of a model, or use another one in its place, whatever framework made it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
from jax.extend import core

from deploycheck.stages.model import Model, PyTree, flatten
from deploycheck.stages.network import Inputs
from deploycheck.stages.tracing import CALLS, called


@dataclass(frozen=True)
class Step:
    """An equation of the program; its operands and results are indices of values, or literals."""

    equation: Any
    operands: tuple[Any, ...]
    results: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """A traced program without calls: the bodies of ``jit``, ``custom_jvp`` and the like are part of it."""

    arguments: tuple[int, ...]
    constants: Mapping[int, Any]
    steps: tuple[Step, ...]
    results: tuple[Any, ...]


def inline(closed: core.ClosedJaxpr) -> Program:
    """Return a traced program with the bodies of its calls in their place."""
    constants: dict[int, Any] = {}
    steps: list[Step] = []
    count = 0

    def number() -> int:
        nonlocal count
        count += 1
        return count - 1

    def walk(closed: core.ClosedJaxpr, arguments: Sequence[Any]) -> list[Any]:
        jaxpr = closed.jaxpr
        own = [number() for _ in closed.consts]
        constants.update(zip(own, closed.consts, strict=True))
        known = dict(zip([*jaxpr.invars, *jaxpr.constvars], [*arguments, *own], strict=True))
        for equation in jaxpr.eqns:
            operands = [v if isinstance(v, core.Literal) else known[v] for v in equation.invars]
            if equation.primitive.name in CALLS:
                results = walk(called(equation), operands)
            else:
                results = [number() for _ in equation.outvars]
                steps.append(Step(equation, tuple(operands), tuple(results)))
            known.update(zip(equation.outvars, results, strict=True))
        return [v if isinstance(v, core.Literal) else known[v] for v in jaxpr.outvars]

    arguments = tuple(number() for _ in closed.jaxpr.invars)
    results = walk(closed, arguments)
    return Program(arguments, constants, tuple(steps), tuple(results))


def without_literals(operands: Iterable[Any]) -> list[int]:
    """Return those that are values of the program."""
    return [it for it in operands if not isinstance(it, core.Literal)]


Settings = Callable[[Step, Sequence[Any]], Mapping[str, Any]]
"""``settings(step, operands)`` returns the parameters of a step's primitive for these operands."""


def as_traced(step: Step, operands: Sequence[Any]) -> Mapping[str, Any]:
    """Return the parameters that a step was traced with."""
    del operands
    settings: Mapping[str, Any] = step.equation.params
    return settings


def run(
    steps: Iterable[Step], known: Mapping[int, Any], wanted: Iterable[Any], settings: Settings = as_traced
) -> list[Any]:
    """Return the wanted values after these steps; those of constants and arguments are ``known``."""
    values = dict(known)

    def value_of(it: Any) -> Any:
        return it.val if isinstance(it, core.Literal) else values[it]

    for step in steps:
        primitive, operands = step.equation.primitive, list(map(value_of, step.operands))
        result = primitive.bind(*operands, **primitive.get_bind_params(settings(step, operands)))
        values.update(zip(step.results, result if primitive.multiple_results else [result], strict=True))
    return list(map(value_of, wanted))


@dataclass(frozen=True)
class ModelProgram:
    """A traced program of a model, and the structure of its answer, a tree.

    ``weights`` are those of its values that are weights, by name; ``inputs`` those that are the model's inputs.
    ``updates`` has, for each result, the weight whose new value it is, or an empty text where it is an output.
    """

    program: Program
    weights: Mapping[int, str]
    inputs: frozenset[int]
    updates: Sequence[str]
    answer: Any

    @property
    def outputs(self) -> list[Any]:
        """The results that are the model's outputs."""
        return [it for it, name in zip(self.program.results, self.updates, strict=True) if not name]

    @cached_property
    def makers(self) -> Mapping[int, Step]:
        """The step that gives each value."""
        return {result: step for step in self.program.steps for result in step.results}

    def reached(self, values: Iterable[Any], *, stop: Collection[int] = ()) -> set[int]:
        """Return the values from which these are computed, and they themselves; none from before those in ``stop``."""
        found, left = set[int](), without_literals(values)
        while left:
            value = left.pop()
            if value not in found:
                found.add(value)
                if value in self.makers and value not in stop:
                    left += without_literals(self.makers[value].operands)
        return found

    def weights_of(self, values: Iterable[int]) -> frozenset[str]:
        """Return the weights among these values."""
        return frozenset(self.weights[value] for value in values if value in self.weights)

    def using(self, others: Mapping[int, int]) -> ModelProgram:
        """Return the program that uses, in place of each of these values, another one."""

        def those(operands: Iterable[Any]) -> tuple[Any, ...]:
            return tuple(it if isinstance(it, core.Literal) else others.get(it, it) for it in operands)

        steps = tuple(replace(step, operands=those(step.operands)) for step in self.program.steps)
        return replace(self, program=replace(self.program, steps=steps, results=those(self.program.results)))

    def given(self, params: PyTree, state: PyTree, *rest: Any) -> dict[int, Any]:
        """Return the constants, and the arguments by their values; weights that aren't there are left out."""
        leaves, others = flatten({"params": params, "state": state})[0], self.program.arguments[len(self.weights) :]
        return {
            **self.program.constants,
            **{value: leaves[name] for value, name in self.weights.items() if name in leaves},
            **dict(zip(others, jax.tree.leaves(rest), strict=True)),
        }

    def values(self, wanted: Sequence[Any], params: PyTree, state: PyTree, *rest: Any) -> list[Any]:
        """Return these values for given weights and inputs; those that none of them needs aren't computed."""
        reached = self.reached(wanted)
        steps = [step for step in self.program.steps if not reached.isdisjoint(step.results)]
        return run(steps, self.given(params, state, *rest), wanted)


def inference_program(form: Model) -> ModelProgram:
    """Return the program for inference, for a batch of two examples."""
    return trace(form.apply, form, dict(form.inputs))


def training_program(form: Model) -> ModelProgram:
    """Return the program for training, for a batch of two examples."""
    return trace(form.train, form, dict(form.inputs), jax.random.key(0))


def trace(function: Callable[..., Any], form: Model, inputs: Inputs, *key: jax.Array) -> ModelProgram:
    """Trace ``function(params, state, inputs, *key)`` of a model for its own weights.

    Where there is a ``key`` the function is for training, and also returns the new state.
    """
    closed, answer = jax.make_jaxpr(function, return_shape=True)(form.params, form.state, inputs, *key)
    program, names = inline(closed), list(form.weights)
    updates = [name for name in names if name.startswith("state/")] if key else []
    start, end = len(names), len(names) + len(jax.tree.leaves(inputs))
    return ModelProgram(
        program=program,
        weights=dict(zip(program.arguments, names, strict=False)),
        inputs=frozenset(program.arguments[start:end]),
        updates=[*[""] * (len(program.results) - len(updates)), *updates],
        answer=jax.tree.structure(answer),
    )
