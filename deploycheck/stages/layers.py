"""Whole layers taken out of a model: what its residual connections go around.

Where a program adds to a value something that it computes from this value, ``x + f(x)``, it can go on with ``x`` alone:
all shapes stay as they are, and the weights of ``f`` are no longer needed. These places are found in the traced
program, so no framework's modules are involved. A layer is named by the part of the parameters' tree that its weights
have in common, such as ``blocks/0``; what several connections of one part go around is one layer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from deploycheck.errors import DeploycheckError
from deploycheck.language.errors import did_you_mean
from deploycheck.stages.dependencies import Program, Step, inline
from deploycheck.stages.kernels import find_kernels
from deploycheck.stages.model import Model, PyTree, flatten, predictor
from deploycheck.stages.network import Inputs, Outputs

BATCH = 32
"""How many examples are looked at together."""


def layer_names(model: Model) -> list[str]:
    """Return the names of a model's layers, in the order in which it computes them."""
    return list(_inference(model.form).layers)


def layers_within(model: Model, kernels: Collection[str]) -> list[str]:
    """Return the layers of which all kernels are among these."""
    others = {f"params/{name}" for name in find_kernels(model).keys() - kernels}
    layers = _inference(model.form).layers
    return [name for name, each in layers.items() if not any(it.weights & others for it in each)]


def drop_layers(model: Model, names: Collection[str]) -> Model:
    """Return the model, or its form, without these layers and without the weights that only they use.

    Raises ``DeploycheckError`` for a name that isn't a layer's.
    """
    form = model.form
    inference = _inference(form)
    training = _trace(form.train, form, dict(form.inputs), jax.random.key(0))
    for name in names:
        if name not in inference.layers:
            raise DeploycheckError(f"the model has no layer {name!r}", hint=_hint(name, inference.layers))
    before, after = (inference.used(dropped, ()) for dropped in ((), names))
    gone = before - after - training.used(names, form.weights.keys() - (before - after))

    def apply(params: PyTree, state: PyTree, inputs: Inputs) -> Outputs:
        program = _trace(form.apply, form, dict(inputs))
        outputs: Outputs = program.evaluate(names, gone, params, state, dict(inputs))
        return outputs

    def train(params: PyTree, state: PyTree, inputs: Inputs, key: jax.Array) -> tuple[Outputs, PyTree]:
        program = _trace(form.train, form, dict(inputs), key)
        outputs, updated = program.evaluate(names, gone, params, state, dict(inputs), key)
        return outputs, _without(updated, gone, "state")

    params, state = _without(model.params, gone, "params"), _without(model.state, gone, "state")
    return replace(model, params=params, state=state, apply=apply, train=train)


def least_influential(model: Model, inputs: Mapping[str, np.ndarray], count: int, among: Collection[str]) -> list[str]:
    """Return the ``count`` of these layers that change least what they are given, in the model's order.

    A layer's influence is 1 minus the cosine between its input and its output, each example as one vector, on average
    over the examples ``inputs``. Men et al., ShortGPT: Layers in Large Language Models are More Redundant Than You
    Expect, 2024. Raises ``DeploycheckError`` where there are fewer than ``count`` layers.
    """
    if len(among) < count:
        what = f"{count} layers can't be taken out of {len(among)}"
        raise DeploycheckError(what, hint=_hint("", among))

    def likeness(weights: PyTree, given: Inputs) -> Outputs:
        params, state = weights
        return _trace(model.apply, model.form, dict(given)).likeness(among, params, state, dict(given))

    examples = len(next(iter(inputs.values())))
    found = predictor(likeness, min(examples, BATCH))((model.params, model.state), inputs)
    chosen = sorted(among, key=lambda name: -float(found[name].mean()))[:count]
    return [name for name in among if name in chosen]


def _hint(name: str, there: Iterable[str]) -> str:
    around = "a layer is what a residual connection goes around: x + f(x), where f has weights in a part of its own"
    return did_you_mean(name, there) or around


@dataclass(frozen=True)
class Residual:
    """An addition of a program: the value that it goes on with if the other is left out, and its result.

    ``weights`` are the names of those that the other uses.
    """

    skip: int
    result: int
    weights: frozenset[str]


@dataclass(frozen=True)
class _Traced:
    """A program of a model, and the structure of its answer.

    ``weights`` are those of its values that are weights, by name; ``inputs`` those that are the model's inputs.
    ``updates`` has, for each result, the weight whose new value it is, or an empty text.
    """

    program: Program
    weights: Mapping[int, str]
    inputs: frozenset[int]
    updates: Sequence[str]
    answer: Any

    @cached_property
    def makers(self) -> Mapping[int, Step]:
        """The step that gives each value."""
        return {result: step for step in self.program.steps for result in step.results}

    @cached_property
    def layers(self) -> Mapping[str, Sequence[Residual]]:
        """The residual connections of each layer: not those inside of what another one goes around."""
        named = [it for it in self._residuals() if _common_path(it.weights)]
        outer = [it for it in named if not any(it.weights < other.weights for other in named)]
        paths = {_common_path(it.weights) for it in outer}
        found: dict[str, list[Residual]] = {}
        for residual in outer:
            path = f"{_common_path(residual.weights)}/"
            found.setdefault(min((it for it in paths if path.startswith(f"{it}/")), key=len), []).append(residual)
        return found

    def _residuals(self) -> Iterator[Residual]:
        """Yield the additions of a value and what is computed from it, or from what it was before other additions."""
        streams: dict[int | None, frozenset[int]] = {}
        for step in self.program.steps:
            for skip, branch in _summands(step):
                stream = streams.get(skip, frozenset([skip]))
                reached = self.reached([branch], stop=stream)
                weights = frozenset(self.weights[it] for it in reached if it in self.weights)
                if weights and reached & stream and not reached & self.inputs - stream:
                    streams[step.results[0]] = stream | {step.results[0]}
                    yield Residual(skip, step.results[0], weights)
            cast = _cast(step)
            if cast in streams:
                streams[step.results[0]] = streams[cast] | {step.results[0]}

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

    def without(self, dropped: Collection[str]) -> dict[int, int]:
        """Return the value that is used in place of each result of a connection, if these layers are left out."""
        moved: dict[int, int] = {}
        for residual in sorted((it for name in dropped for it in self.layers[name]), key=lambda it: it.result):
            moved[residual.result] = moved.get(residual.skip, residual.skip)  # which was moved before
        return moved

    def used(self, dropped: Collection[str], updated: Collection[str]) -> frozenset[str]:
        """Return the weights that the outputs and these updates use, if some layers are left out."""
        results = [
            it for it, name in zip(self.program.results, self.updates, strict=True) if not name or name in updated
        ]
        reached = self.reached(results, moved=self.without(dropped))
        return frozenset(self.weights[value] for value in reached if value in self.weights)

    def evaluate(
        self, dropped: Collection[str], gone: Collection[str], params: PyTree, state: PyTree, *rest: Any
    ) -> Any:
        """Return the answer without these layers; the updates of weights that are ``gone`` are zeros."""
        there = [name not in gone for name in self.updates]
        wanted = [it for it, is_there in zip(self.program.results, there, strict=True) if is_there]
        values = iter(self.values(wanted, self.without(dropped), params, state, *rest))
        leaves = [next(values) if is_there else 0 for is_there in there]
        return jax.tree.unflatten(jax.tree.structure(self.answer), leaves)

    def values(
        self, wanted: Sequence[Any], moved: Mapping[int, int], params: PyTree, state: PyTree, *rest: Any
    ) -> list[Any]:
        """Return these values of the program; those that none of them needs aren't computed."""
        reached, given = self.reached(wanted, moved=moved), flatten({"params": params, "state": state})[0]
        known: dict[int, Any] = dict(self.program.constants)
        known.update({value: given[name] for value, name in self.weights.items() if name in given})
        known.update(zip(self.program.arguments[len(self.weights) :], jax.tree.leaves(rest), strict=True))

        def value_of(it: Any) -> Any:
            return it.val if isinstance(it, core.Literal) else known[moved.get(it, it)]

        for step in self.program.steps:
            if reached.isdisjoint(step.results):
                continue
            primitive, settings = step.equation.primitive, step.equation.params
            result = primitive.bind(*map(value_of, step.operands), **primitive.get_bind_params(settings))
            known.update(zip(step.results, result if primitive.multiple_results else [result], strict=True))
        return [value_of(it) for it in wanted]

    def likeness(self, names: Collection[str], params: PyTree, state: PyTree, inputs: Inputs) -> dict[str, jax.Array]:
        """Return for each layer the cosine between its input and its output, ``[batch]``."""
        ends = [value for name in names for value in (self.layers[name][0].skip, self.layers[name][-1].result)]
        values = self.values(ends, {}, params, state, inputs)
        return {
            name: _cosine(*pair) for name, pair in zip(names, zip(values[::2], values[1::2], strict=True), strict=True)
        }


def _inference(form: Model) -> _Traced:
    return _trace(form.apply, form, dict(form.inputs))


def _trace(function: Callable[..., Any], form: Model, inputs: Inputs, *key: Any) -> _Traced:
    """Trace ``function(params, state, inputs, *key)`` of a model for its own weights."""
    closed, answer = jax.make_jaxpr(function, return_shape=True)(form.params, form.state, inputs, *key)
    program, names = inline(closed), list(form.weights)
    updates = [name for name in names if name.startswith("state/")] if key else []
    start, end = len(names), len(names) + len(jax.tree.leaves(inputs))
    return _Traced(
        program=program,
        weights=dict(zip(program.arguments, names, strict=False)),
        inputs=frozenset(program.arguments[start:end]),
        updates=[*[""] * (len(program.results) - len(updates)), *updates],
        answer=answer,
    )


def _summands(step: Step) -> Iterator[tuple[int, Any]]:
    """Yield both values of an addition, each as what stays and the other as what is added."""
    one, other = step.operands if step.equation.primitive.name in ("add", "add_any") else (None, None)
    if one is None or any(it.aval.shape != step.equation.outvars[0].aval.shape for it in step.equation.invars):
        return
    for skip, branch in ((one, other), (other, one)):
        if not isinstance(skip, core.Literal) and not isinstance(branch, core.Literal):
            yield skip, branch


def _cast(step: Step) -> int | None:
    """Return the value that a step gives another number type."""
    is_cast = step.equation.primitive.name == "convert_element_type"
    return step.operands[0] if is_cast and not isinstance(step.operands[0], core.Literal) else None


def _common_path(weights: Collection[str]) -> str:
    """Return the part of the params' tree that has all params among these weights."""
    paths = [name.split("/")[1:-1] for name in weights if name.startswith("params/")]
    shared = []
    for keys in zip(*paths, strict=False):
        if len(set(keys)) > 1:
            break
        shared.append(keys[0])
    return "/".join(shared)


def _without(tree: PyTree, gone: Collection[str], prefix: str) -> PyTree:
    """Return a tree without these leaves, and without the mappings in it that have no others."""
    if isinstance(tree, Mapping):
        rest = {key: _without(each, gone, f"{prefix}/{key}") for key, each in tree.items()}
        return {key: each for key, each in rest.items() if jax.tree.leaves(each) or not jax.tree.leaves(tree[key])}
    leaves, restore = flatten({prefix: tree})
    return restore({name: None if name in gone else leaf for name, leaf in leaves.items()})[prefix]


def _cosine(one: jax.Array, other: jax.Array) -> jax.Array:
    first, second = (it.astype(jnp.float32).reshape(len(it), -1) for it in (one, other))
    lengths = jnp.linalg.norm(first, axis=1) * jnp.linalg.norm(second, axis=1)
    cosine: jax.Array = (first * second).sum(axis=1) / jnp.where(lengths > 0, lengths, 1)
    return cosine
