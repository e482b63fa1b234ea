"""An ONNX model in an onnxruntime session."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnxruntime

from deploycheck.serving.runtimes._onnx_types import held_as
from deploycheck.serving.signature import DTYPES, SIGNATURE, read_signature
from deploycheck.store import Artifact
from deploycheck.store.weights import read_weights

PROGRAM, WEIGHTS = "model.onnx", "weights.safetensors"
ERRORS = 3
"""The least severity that onnxruntime logs: its warnings are about its own optimisations."""


class OnnxEngine:
    """The model in one session on the CPU, which takes a batch of any size; nothing is compiled once it is loaded."""

    def __init__(self, artifact: Artifact, sizes: Sequence[int]) -> None:
        self.artifact = artifact
        self.signature = read_signature(artifact.file(SIGNATURE))
        self.sizes = tuple(sizes)
        self.on_compile: Callable[[], None] = lambda: None
        weights = {name: _held(array) for name, array in read_weights(artifact.file(WEIGHTS)).items()}
        options = onnxruntime.SessionOptions()
        options.log_severity_level = ERRORS
        # Given to the session before it optimises the graph, the weights are constants of it.
        options.add_external_initializers(
            list(weights), [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        )
        # Threads that spin while they wait would take the processor from the server and its callers.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        program = artifact.file(PROGRAM).read_bytes()
        self._session = onnxruntime.InferenceSession(program, options, providers=["CPUExecutionProvider"])
        names = sorted(tensor.name for tensor in self.signature.inputs)
        self._inputs = dict(zip(names, (each.name for each in self._session.get_inputs()), strict=True))

    def compile(self) -> float:
        """Run each batch size once, so that memory is set apart for it; return the seconds it took."""
        started = time.monotonic()
        for size in self.sizes:
            self.run(
                {
                    tensor.name: np.zeros((size, *tensor.shape), DTYPES[tensor.datatype])
                    for tensor in self.signature.inputs
                }
            )
        return time.monotonic() - started

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return every output by name, ``[batch, ...]``, for a batch of any size."""
        outputs = self._session.run(None, {self._inputs[name]: array for name, array in inputs.items()})
        return {tensor.name: array for tensor, array in zip(self.signature.outputs, outputs, strict=True)}


def _held(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.astype(held_as(array.dtype), copy=False)).reshape(array.shape)
