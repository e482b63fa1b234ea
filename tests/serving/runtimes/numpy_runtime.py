"""A plugin's runtime, as a project's file declares it: a linear model with two outputs, answered by numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from deploycheck.serving.signature import SIGNATURE, Signature, read_signature, tensor_metadata, write_signature
from deploycheck.stages.network import Network, TensorSpec
from deploycheck.store import Artifact
from deploycheck.store.weights import read_weights, write_weights

WEIGHTS = "weights.safetensors"


class NumpyEngine:
    def __init__(self, artifact: Artifact, sizes: Sequence[int]) -> None:
        self.artifact = artifact
        self.sizes = tuple(sizes)
        self.signature = read_signature(artifact.file(SIGNATURE))
        self.on_compile: Callable[[], None] = lambda: None
        self._kernel = read_weights(artifact.file(WEIGHTS))["kernel"]

    def compile(self) -> float:
        return 0.0

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        scores = inputs["x"] @ self._kernel
        return {"scores": scores, "best": scores.argmax(axis=1).astype(np.int32)}


class NumpyRuntime:
    name = "numpy"
    lasts: timedelta | None = None

    def export(self, network: Network, inputs: Mapping[str, TensorSpec], name: str, folder: Path) -> None:
        outputs = network.apply(
            network.weights, {key: np.zeros((1, *each.shape), each.dtype) for key, each in inputs.items()}
        )
        signature = Signature(
            model=name,
            runtime=self.name,
            inputs=tuple(tensor_metadata(key, each.shape, each.dtype) for key, each in inputs.items()),
            outputs=tuple(tensor_metadata(key, each.shape[1:], each.dtype.name) for key, each in outputs.items()),
        )
        write_weights(network.weights, folder / WEIGHTS)
        write_signature(signature, folder)

    def engine(self, artifact: Artifact, sizes: Sequence[int]) -> NumpyEngine:
        return NumpyEngine(artifact, sizes)


class NotARuntime:
    name = "numpy"


def pytest_deploycheck_extensions() -> list[Any]:
    return [NotARuntime(), NumpyRuntime()]
