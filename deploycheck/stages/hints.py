"""Hints: what a teacher computes inside is a further target of its student.

Romero et al., FitNets: Hints for Thin Deep Nets, 2015. A part of a model is a part of its parameters' tree, such as
``blocks/1``, or a single weight. What it computes is the first value of the traced program through which all that its
weights do goes on to the outputs: of a dense layer its sums with the bias, of a residual block the sum at its end. So
no framework's modules are involved, and a pruned or quantised teacher gives hints too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deploycheck.errors import DeploycheckError
from deploycheck.language.errors import did_you_mean
from deploycheck.stages.divergences import squared_difference
from deploycheck.stages.model import Model, PyTree
from deploycheck.stages.network import Inputs, Outputs
from deploycheck.stages.programs import ModelProgram, inference_program, trace, without_literals

HINTS = "hints"
"""The output of a hinted student that says how far it is from its hints, ``[batch]``."""


def with_hints(student: Model, teacher: Model, parts: Mapping[str, str], seed: int) -> Model:
    """Return the student with one more output, ``HINTS``: its distance from what the teacher computes inside.

    It is the mean, over pairs of a student's and a teacher's part, of the mean squared difference between what the two
    compute. Where their last axes have different sizes, a linear map of the student's, which is learned with it, is
    compared. The params are those of the student, and of these maps; the state has the teacher's weights too. See
    ``without_hints``. Raises ``DeploycheckError`` for a part that isn't there, and for shapes that don't fit.
    """
    widths = check_hints(student.form, teacher.form, parts)
    keys = jax.random.split(jax.random.key(seed), len(parts))
    regressors = {
        part: {"kernel": jax.random.normal(key, sizes) / np.sqrt(sizes[0]), "bias": jnp.zeros(sizes[1])}
        for key, (part, sizes) in zip(keys, widths.items(), strict=True)
        if sizes[0] != sizes[1]
    }

    def distance(regressors: PyTree, features: Mapping[str, jax.Array], state: PyTree, inputs: Inputs) -> jax.Array:
        _, hints = _features(teacher.apply, teacher.form, parts.values(), *state["teacher"], inputs)
        pairs = ((_mapped(regressors.get(part), features[part]), hints[parts[part]]) for part in parts)
        return jnp.stack([squared_difference(mine, theirs) for mine, theirs in pairs]).mean(axis=0)

    def apply(params: PyTree, state: PyTree, inputs: Inputs) -> Outputs:
        given = (params["student"], state["student"], dict(inputs))
        outputs, features = _features(student.apply, student.form, parts, *given)
        return {**outputs, HINTS: distance(params["regressors"], features, state, dict(inputs))}

    def train(params: PyTree, state: PyTree, inputs: Inputs, key: jax.Array) -> tuple[Outputs, PyTree]:
        given = (params["student"], state["student"], dict(inputs), key)
        (outputs, updated), features = _features(student.train, student.form, parts, *given)
        hinted = {**outputs, HINTS: distance(params["regressors"], features, state, dict(inputs))}
        return hinted, {**state, "student": updated}

    params = {"student": student.params, "regressors": regressors}
    state = {"student": student.state, "teacher": (teacher.params, teacher.state)}
    return replace(student, params=params, state=state, apply=apply, train=train)


def without_hints(hinted: Model, student: Model) -> Model:
    """Return the student with what a hinted one has learned; the linear maps are thrown away."""
    return replace(student, params=hinted.params["student"], state=hinted.state["student"])


def _mapped(regressor: PyTree | None, features: jax.Array) -> jax.Array:
    return features if regressor is None else features @ regressor["kernel"] + regressor["bias"]


def _features(
    function: Callable[..., Any], form: Model, parts: Iterable[str], *given: Any
) -> tuple[Any, dict[str, jax.Array]]:
    """Return a model's answer for ``(params, state, inputs, key)``, and what its parts compute, in float32."""
    program, parts = trace(function, form, *given[2:]), list(parts)
    results = program.program.results
    values = program.values([*results, *(find_feature(program, part) for part in parts)], *given)
    answer = jax.tree.unflatten(program.answer, values[: len(results)])
    return answer, {part: it.astype(jnp.float32) for part, it in zip(parts, values[len(results) :], strict=True)}


def find_feature(program: ModelProgram, part: str) -> int:
    """Return the first value through which all that the weights of a part do reaches the outputs.

    Raises ``DeploycheckError`` for a part that the model doesn't have, and for one with no such value.
    """
    own = {value for value, name in program.weights.items() if f"{name}/".startswith(f"params/{part}/")}
    if not own:
        raise DeploycheckError(f"there is no part {part!r}", hint=did_you_mean(part, _parts(program)))
    alive, steps = program.reached(program.outputs), program.program.steps
    last: dict[int, float] = {}
    for number, step in enumerate(steps):
        if not alive.isdisjoint(step.results):
            last.update(dict.fromkeys(without_literals(step.operands), number))
    last.update({value: float("inf") for value in without_literals(program.outputs)})
    touched, computed = own & alive, set(program.inputs)
    for number, step in enumerate(steps):
        operands = set(without_literals(step.operands))
        touched |= alive.intersection(step.results) if operands & touched else set()
        computed.update(step.results if operands & computed else ())
        waiting = [value for value in touched if last[value] > number]
        if len(waiting) == 1 and waiting[0] in computed:
            return waiting[0]
    raise DeploycheckError(
        f"the part {part!r} computes no single value: its weights reach the outputs in several ways",
        hint="name a part that is a single layer or block",
    )


def _parts(program: ModelProgram) -> list[str]:
    """Return the parts of a model; where its params have no tree, they themselves."""
    names = [name.split("/")[1:] for name in program.weights.values() if name.startswith("params/")]
    inner = {"/".join(name[:depth]) for name in names for depth in range(1, len(name))}
    return sorted(inner or {"/".join(name) for name in names})


def check_hints(student: Model, teacher: Model, parts: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Return the sizes of the last axes of what each pair of parts computes, by the student's part.

    Raises ``DeploycheckError`` for a part that isn't there, and for pairs that can't be compared.
    """
    mine, theirs = (_shapes(*each) for each in (("student", student, parts), ("teacher", teacher, parts.values())))
    for part, other in parts.items():
        one, two = mine[part], theirs[other]
        if len(one) < 2 or one[:-1] != two[:-1]:
            what = f"for a batch of 2 the student's {part} gives {list(one)}, and the teacher's {other} {list(two)}"
            raise DeploycheckError(what, hint="choose parts that differ in the last axis alone")
    return {part: (mine[part][-1], theirs[other][-1]) for part, other in parts.items()}


def _shapes(whose: str, form: Model, parts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    program = inference_program(form)
    shapes = {}
    for part in parts:
        try:
            value = find_feature(program, part)
        except DeploycheckError as error:
            raise DeploycheckError(f"in the {whose} {error.what}", hint=error.hint) from error
        step = program.makers[value]
        shapes[part] = tuple(step.equation.outvars[step.results.index(value)].aval.shape)
    return shapes
