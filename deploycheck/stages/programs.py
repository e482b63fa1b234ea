"""A model's program as a graph of values: which of them others are computed from, and what they are for given inputs.

So a method can take a value from inside of a model, or use another one in its place, whatever framework made it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
from jax.extend import core

from deploycheck.stages.dependencies import Program, Step, inline
from deploycheck.stages.model import Model, PyTree, flatten
from deploycheck.stages.network import Inputs


@dataclass(frozen=True)
class ModelProgram:
    """A traced program of a model, and the structure of its answer.

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

    def reached(
        self, values: Iterable[Any], *, stop: Collection[int] = (), moved: Mapping[int, int] | None = None
    ) -> set[int]:
        """Return the values from which these are computed, and they themselves; none from before those in ``stop``.

        ``moved`` are values in whose place another one is used.
        """
        found, left = set[int](), list(values)
        while left:
            value = left.pop()
            if isinstance(value, core.Literal):
                continue
            value = moved.get(value, value) if moved else value
            if value not in found:
                found.add(value)
                left += self.makers[value].operands if value in self.makers and value not in stop else ()
        return found

    def weights_of(self, values: Iterable[int]) -> frozenset[str]:
        """Return the weights among these values."""
        return frozenset(self.weights[value] for value in values if value in self.weights)

    def values(
        self,
        wanted: Sequence[Any],
        params: PyTree,
        state: PyTree,
        *rest: Any,
        moved: Mapping[int, int] | None = None,
    ) -> list[Any]:
        """Return these values for given weights and inputs; those that none of them needs aren't computed."""
        others: Mapping[int, int] = moved or {}
        reached, given = self.reached(wanted, moved=others), flatten({"params": params, "state": state})[0]
        known: dict[int, Any] = dict(self.program.constants)
        known.update({value: given[name] for value, name in self.weights.items() if name in given})
        known.update(zip(self.program.arguments[len(self.weights) :], jax.tree.leaves(rest), strict=True))

        def value_of(it: Any) -> Any:
            return it.val if isinstance(it, core.Literal) else known[others.get(it, it)]

        for step in self.program.steps:
            if reached.isdisjoint(step.results):
                continue
            primitive, settings = step.equation.primitive, step.equation.params
            result = primitive.bind(*map(value_of, step.operands), **primitive.get_bind_params(settings))
            known.update(zip(step.results, result if primitive.multiple_results else [result], strict=True))
        return [value_of(it) for it in wanted]


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
        answer=answer,
    )
