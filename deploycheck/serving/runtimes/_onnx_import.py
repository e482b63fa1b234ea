"""An exported ONNX model as a network again: its graph as a function of JAX, its weights as they are stored."""

from __future__ import annotations

import jax.numpy as jnp

from deploycheck.errors import located
from deploycheck.serving.runtimes._onnx_export import PROGRAM, WEIGHTS
from deploycheck.serving.signature import SIGNATURE, read_signature
from deploycheck.stages.network import Inputs, Network, Outputs, Weights
from deploycheck.stages.onnx.evaluate import evaluate
from deploycheck.stages.onnx.file import read_program
from deploycheck.store import Artifact
from deploycheck.store.weights import read_weights


def read(artifact: Artifact) -> Network:
    """Return what ``_onnx_export.write`` wrote. Raises ``DeploycheckError`` for a file that can't be read."""
    signature = read_signature(artifact.file(SIGNATURE))
    graph, dtypes = read_program(artifact.file(PROGRAM))
    given = zip(graph.inputs, sorted(each.name for each in signature.inputs), strict=True)
    names = {there.name: here for there, here in given}

    def apply(weights: Weights, inputs: Inputs) -> Outputs:
        # As the engine holds them: ONNX has no arithmetic for the narrow types that weights may be stored in.
        tensors = {name: weights[name].astype(dtype) for name, dtype in dtypes.items()}
        arrays = {there: jnp.asarray(inputs[here]) for there, here in names.items()}
        with located(PROGRAM):
            results = evaluate(graph, {**tensors, **arrays})
        return {each.name: jnp.asarray(result) for each, result in zip(signature.outputs, results, strict=True)}

    weights = {name: jnp.asarray(array) for name, array in read_weights(artifact.file(WEIGHTS)).items()}
    return Network(weights, apply)
