"""Whole layers taken out of a model: what its residual connections go around.

Where a program adds to a value something that it computes from this value, ``x + f(x)``, it can go on with ``x`` alone:
all shapes stay as they are, and the weights of ``f`` are no longer needed. These places are found in the traced
program, so no framework's modules are involved. A layer is named by the part of the parameters' tree that its weights
have in common, such as ``blocks/0``; what several connections of one part go around is one layer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from deploycheck.errors import DeploycheckError
from deploycheck.language.errors import did_you_mean
from deploycheck.stages.kernels import find_kernels
from deploycheck.stages.model import Model, PyTree, flatten, predictor
from deploycheck.stages.network import Inputs, Outputs
from deploycheck.stages.programs import (
    ModelProgram,
    Step,
    inference_program,
    trace,
    training_program,
    without_literals,
)

BATCH = 32
"""How many examples are looked at together."""


def layer_names(model: Model) -> list[str]:
    """Return the names of a model's layers, in the order in which it computes them."""
    return list(_layers_of(inference_program(model.form)))


def layers_within(model: Model, kernels: Collection[str]) -> list[str]:
    """Return the layers of which all kernels are among these."""
    others = {f"params/{name}" for name in find_kernels(model).keys() - kernels}
    layers = _layers_of(inference_program(model.form))
    return [name for name, each in layers.items() if not any(it.weights & others for it in each)]


def drop_layers(model: Model, names: Collection[str]) -> Model:
    """Return the model, or its form, without these layers and without the weights that only they use.

    Raises ``DeploycheckError`` for a name that isn't a layer's.
    """
    form = model.form
    inference, training = inference_program(form), training_program(form)
    layers = _layers_of(inference)
    for name in names:
        if name not in layers:
            raise DeploycheckError(f"the model has no layer {name!r}", hint=_hint(name, layers))
    before, after = (_used(program, program.outputs) for program in (inference, _without_layers(inference, names)))
    left = _without_layers(training, names)
    updated = [it for it, update in _results(left) if update not in before - after]
    gone = before - after - _used(left, updated)

    def evaluate(program: ModelProgram, params: PyTree, state: PyTree, *rest: Any) -> Any:
        """Return the program's answer without the layers; the new state that is gone with them is zeros."""
        left = _without_layers(program, names)
        values = iter(left.values([it for it, name in _results(left) if name not in gone], params, state, *rest))
        leaves = [0 if name in gone else next(values) for name in left.updates]
        return jax.tree.unflatten(left.answer, leaves)

    def apply(params: PyTree, state: PyTree, inputs: Inputs) -> Outputs:
        outputs: Outputs = evaluate(trace(form.apply, form, dict(inputs)), params, state, dict(inputs))
        return outputs

    def train(params: PyTree, state: PyTree, inputs: Inputs, key: jax.Array) -> tuple[Outputs, PyTree]:
        outputs, updated = evaluate(trace(form.train, form, dict(inputs), key), params, state, dict(inputs), key)
        return outputs, _without(updated, gone, "state")

    params, state = _without(model.params, gone, "params"), _without(model.state, gone, "state")
    return replace(model, params=params, state=state, apply=apply, train=train)


def least_influential(model: Model, inputs: Mapping[str, np.ndarray], count: int, among: Collection[str]) -> list[str]:
    """Return the ``count`` of these layers that change least what they are given, in the model's order.

    A layer's influence is 1 minus the cosine between its input and its output, each example as one vector, on average
    over the examples ``inputs``. Men et al., ShortGPT: Layers in Large Language Models are More Redundant Than You
    Expect, 2024. Raises ``DeploycheckError`` where there are fewer than ``count`` layers.
    """
    check_count(among, count)

    def likeness(weights: PyTree, given: Inputs) -> Outputs:
        params, state = weights
        program = trace(model.apply, model.form, dict(given))
        layers = _layers_of(program)
        ends = [value for name in among for value in (layers[name][0].skip, layers[name][-1].result)]
        values = program.values(ends, params, state, dict(given))
        return dict(zip(among, map(_cosine, values[::2], values[1::2]), strict=True))

    examples = len(next(iter(inputs.values())))
    found = predictor(likeness, min(examples, BATCH))((model.params, model.state), inputs)
    chosen = sorted(among, key=lambda name: -float(found[name].mean()))[:count]
    return [name for name in among if name in chosen]


def check_count(layers: Collection[str], count: int) -> None:
    """Raise ``DeploycheckError`` where there are fewer than ``count`` layers."""
    if len(layers) < count:
        raise DeploycheckError(f"{count} layers can't be taken out of {len(layers)}", hint=_hint("", layers))


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


def _layers_of(program: ModelProgram) -> Mapping[str, Sequence[Residual]]:
    """Return the residual connections of each layer: not those inside of what another one goes around."""
    named = [it for it in _residuals(program) if _common_path(it.weights)]
    outer = [it for it in named if not any(it.weights < other.weights for other in named)]
    paths = {_common_path(it.weights) for it in outer}
    found: dict[str, list[Residual]] = {}
    for residual in outer:
        path = f"{_common_path(residual.weights)}/"
        found.setdefault(min((it for it in paths if path.startswith(f"{it}/")), key=len), []).append(residual)
    return found


def _residuals(program: ModelProgram) -> Iterator[Residual]:
    """Yield the additions of a value and what is computed from it, or from what it was before other additions."""
    streams: dict[int | None, frozenset[int]] = {}
    for step in program.program.steps:
        for skip, branch in _summands(step):
            stream = streams.get(skip, frozenset([skip]))
            reached = program.reached([branch], stop=stream)
            weights = program.weights_of(reached)
            if weights and reached & stream and not reached & program.inputs - stream:
                streams[step.results[0]] = stream | {step.results[0]}
                yield Residual(skip, step.results[0], weights)
        cast = _cast(step)
        if cast in streams:
            streams[step.results[0]] = streams[cast] | {step.results[0]}


def _without_layers(program: ModelProgram, dropped: Collection[str]) -> ModelProgram:
    """Return the program that goes on, at each connection of these layers, with what they are given."""
    layers, others = _layers_of(program), dict[int, int]()
    for residual in sorted((it for name in dropped for it in layers[name]), key=lambda it: it.result):
        others[residual.result] = others.get(residual.skip, residual.skip)  # of which another one is used
    return program.using(others)


def _used(program: ModelProgram, results: Iterable[Any]) -> frozenset[str]:
    """Return the weights that these results are computed from."""
    return program.weights_of(program.reached(results))


def _results(program: ModelProgram) -> Iterator[tuple[Any, str]]:
    """Yield the results, each with the weight whose new value it is, if any."""
    return zip(program.program.results, program.updates, strict=True)


def _summands(step: Step) -> Iterator[tuple[int, Any]]:
    """Yield both values of an addition, each as what stays and the other as what is added."""
    one, other = step.operands if step.equation.primitive.name in ("add", "add_any") else (None, None)
    if one is None or any(it.aval.shape != step.equation.outvars[0].aval.shape for it in step.equation.invars):
        return
    if len(without_literals(step.operands)) == 2:
        yield from ((one, other), (other, one))


def _cast(step: Step) -> int | None:
    """Return the value that a step gives another number type."""
    is_cast = step.equation.primitive.name == "convert_element_type"
    return next(iter(without_literals(step.operands)), None) if is_cast else None


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
    """Return the cosine between two values of each example, ``[batch]``; of one that is all zeros it is 0."""
    first, second = (it.astype(jnp.float32).reshape(len(it), -1) for it in (one, other))
    cosine: jax.Array = optax.losses.cosine_similarity(first, second, epsilon=float(np.finfo(np.float32).tiny))
    return cosine
