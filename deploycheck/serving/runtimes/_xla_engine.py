"""An exported program, loaded and compiled for every batch size."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import export

from deploycheck.errors import DeploycheckError
from deploycheck.serving.runtimes._xla_export import PROGRAM, WEIGHTS
from deploycheck.serving.signature import DTYPES, SIGNATURE, read_signature
from deploycheck.store import Artifact
from deploycheck.store.weights import read_weights

COMPILED = "/jax/core/compile/backend_compile_duration"
"""JAX's own name for the event that it compiled a program."""
WIDE = 8
"""Bytes of the types that JAX narrows unless it is told not to; a model may have been trained with them."""


def load_program(artifact: Artifact) -> export.Exported:
    """Return the program of an export; raise ``DeploycheckError`` for one for a device that this machine has not."""
    facts = json.loads(artifact.file(SIGNATURE).read_bytes())
    platform = export.default_export_platform()
    if platform not in facts["platforms"]:
        raise DeploycheckError(
            f"was exported for {', '.join(facts['platforms'])}, this process runs on {platform}",
            hint="export it on a machine with this kind of device",
        )
    return export.deserialize(bytearray(gzip.decompress(artifact.file(PROGRAM).read_bytes())))


def is_wide(program: export.Exported) -> bool:
    """Whether a program takes or gives 64-bit numbers."""
    return any(aval.dtype.itemsize == WIDE for aval in program.in_avals + program.out_avals)


class XlaEngine:
    """The model compiled for every batch size in ``sizes``; a batch of another size is padded to the next one.

    ``on_compile`` is called for every program that JAX compiles in this process from ``compile`` on, whoever
    asked for it. Raises ``DeploycheckError`` for an export for another kind of device than this machine has.
    """

    def __init__(self, artifact: Artifact, sizes: Sequence[int]) -> None:
        self._program = load_program(artifact)
        self.artifact = artifact
        self.signature = read_signature(artifact.file(SIGNATURE))
        self.sizes = tuple(sizes)
        self.on_compile: Callable[[], None] = lambda: None
        self._wide = is_wide(self._program)
        with jax.enable_x64(self._wide):
            weights = read_weights(artifact.file(WEIGHTS))
            self._weights = {name: jax.device_put(array) for name, array in weights.items()}
        self._compiled: dict[int, Any] = {}

    def compile(self) -> float:
        """Compile every batch size and run each once; return the seconds it took."""
        started = time.monotonic()
        jax.monitoring.register_event_duration_secs_listener(self._on_event)
        function = jax.jit(self._program.call)
        for size in self.sizes:
            inputs = {
                tensor.name: np.zeros((size, *tensor.shape), DTYPES[tensor.datatype])
                for tensor in self.signature.inputs
            }
            with jax.enable_x64(self._wide):
                self._compiled[size] = function.lower(self._weights, inputs).compile()
            self.run(inputs)
        return time.monotonic() - started

    def _on_event(self, event: str, duration_secs: float, **_: str | int) -> None:
        del duration_secs
        if event == COMPILED:
            self.on_compile()

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return every output by name, ``[batch, ...]``, for a batch of 1 to the largest size."""
        count = len(next(iter(inputs.values())))
        size = next(size for size in self.sizes if size >= count)
        padded = {name: _pad(array, size - count) for name, array in inputs.items()}
        with jax.enable_x64(self._wide):
            outputs = self._compiled[size](self._weights, padded)
        return {name: np.asarray(array)[:count] for name, array in outputs.items()}


def _pad(array: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([array, np.zeros((rows, *array.shape[1:]), array.dtype)]) if rows else array
