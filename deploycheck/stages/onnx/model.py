"""An ONNX file as a ``Model``: what it holds, sorted into weights that can be trained, other arrays, and constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deploycheck.errors import located
from deploycheck.stages.inputs import converted, match_inputs
from deploycheck.stages.model import Model, PyTree, named_outputs
from deploycheck.stages.network import Inputs, Outputs
from deploycheck.stages.onnx.evaluate import evaluate
from deploycheck.stages.onnx.file import read_graph
from deploycheck.stages.onnx.graph import Graph

STATISTICS = {("BatchNormalization", 3), ("BatchNormalization", 4)}
"""Operands that no training changes: the mean and the variance of batch normalisation."""
SHAPING = {("Resize", 1), ("Resize", 2), ("Range", 0), ("Range", 1), ("Range", 2)}
"""Operands of floats that decide a shape, so they must be known when the program is traced."""
HINT = "the spec's inputs, after `preprocess`, are those of the file without its first axis, the batch"


@dataclass(frozen=True)
class Held:
    """The tensors of a file by what becomes of them.

    ``params`` are floats with an axis: compression and training change them. ``state`` is stored with them and stays
    as it is: running statistics, and quantised arrays of 8 bits and less. ``constants`` are part of the program:
    single numbers, whatever has no finite value, and whole numbers, which may decide a shape.
    """

    params: dict[str, np.ndarray]
    state: dict[str, np.ndarray]
    constants: dict[str, np.ndarray]


def read_model(path: Path, inputs: Inputs, outputs: tuple[str, ...]) -> Model:
    """Return the model of an ONNX file.

    ``inputs`` are shapes and dtypes of one batch, by name; ``outputs`` are the names of the outputs in this task: a
    file's single output is the first of them. Training and inference are the same function: a file says nothing of
    dropout, and the statistics of its batch normalisation stay as they are. Raises ``DeploycheckError`` for a file
    that can't be read or evaluated, and for inputs that differ from the file's.
    """
    graph = read_graph(path)
    given = match_inputs(graph.inputs, inputs, HINT)
    held = sort_tensors(graph)
    program = replace(graph, held=held.constants)
    fixed = [each.name for each in graph.inputs if each.shape and each.shape[0] == 1]

    def apply(params: PyTree, state: PyTree, inputs: Inputs) -> Outputs:
        arrays = {each.name: converted(inputs[given[each.name]], each) for each in graph.inputs}
        values = {**params, **state}
        with located(path.name):
            if fixed:
                return named(_one_by_one(program, values, arrays))
            return named(evaluate(program, {**values, **arrays}))

    def named(results: list[Any]) -> Outputs:
        answers = {name: jnp.asarray(result) for name, result in zip(graph.outputs, results, strict=True)}
        return named_outputs(answers if len(answers) > 1 else next(iter(answers.values())), outputs)

    def train(params: PyTree, state: PyTree, inputs: Inputs, key: jax.Array) -> tuple[Outputs, PyTree]:
        del key
        return apply(params, state, inputs), state

    params, state = (
        {name: jnp.asarray(array) for name, array in arrays.items()} for arrays in (held.params, held.state)
    )
    return Model(params=params, state=state, apply=apply, train=train, inputs=inputs)


def sort_tensors(graph: Graph) -> Held:
    """Sort what a file holds."""
    uses: dict[str, set[tuple[str, int]]] = {}
    for node in graph.all_nodes():
        for at, name in enumerate(node.inputs):
            uses.setdefault(name, set()).add((node.op, at))
    held = Held({}, {}, {})
    for name, array in graph.held.items():
        if name in uses or name in graph.outputs:
            _place(held, array, uses.get(name, set()))[name] = array
    return held


def _place(held: Held, array: np.ndarray, uses: set[tuple[str, int]]) -> dict[str, np.ndarray]:
    if not array.ndim or not array.size or uses & SHAPING:
        return held.constants
    if jnp.issubdtype(array.dtype, jnp.floating):
        if uses & STATISTICS:
            return held.state
        return held.params if np.isfinite(array.astype(np.float32)).all() else held.constants
    return held.state if jnp.issubdtype(array.dtype, jnp.integer) and array.dtype.itemsize == 1 else held.constants


def _one_by_one(program: Graph, values: Mapping[str, Any], arrays: Mapping[str, Any]) -> list[Any]:
    """Evaluate a file that is written for a batch of one, on a batch of any size."""

    def alone(example: Mapping[str, Any]) -> list[Any]:
        batch = {name: array[None] for name, array in example.items()}
        results = [jnp.asarray(each) for each in evaluate(program, {**values, **batch})]
        return [jnp.squeeze(each, 0) if each.ndim and each.shape[0] == 1 else each for each in results]

    results: list[Any] = jax.vmap(alone)(dict(arrays))
    return results
