"""Loading an exported artifact and answering batches with it.

An exported program has no integrity check of its own: half of all flipped bits load and answer wrongly, and some
crash the process. So nothing is deserialised before every file's digest was verified.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export
from safetensors.numpy import load_file

from deploycheck.errors import DeploycheckError
from deploycheck.serving.protocol import DTYPES, Signature, read_signature
from deploycheck.store import Artifact, open_artifact

COMPILED = "/jax/core/compile/backend_compile_duration"
"""JAX's own name for the event that it compiled a program."""


class LoadError(DeploycheckError):
    """An artifact that is whole, but that this machine can't run."""


@dataclass(frozen=True)
class Loaded:
    """An artifact ready to be compiled."""

    artifact: Artifact
    signature: Signature
    program: export.Exported
    weights: Mapping[str, jax.Array]


def load(folder: Path) -> Loaded:
    """Verify an artifact, then deserialise it.

    Raises ``CorruptArtifact`` where a digest doesn't match, ``LoadError`` where it is no exported model, expired,
    or made for another kind of device.
    """
    artifact = open_artifact(folder)
    if artifact.kind != "model":
        raise LoadError(f"is an artifact of kind {artifact.kind!r}, expected an exported model", where=str(folder))
    facts = json.loads(artifact.file("signature.json").read_bytes())
    until = artifact.meta.get("loadable_until")
    if until and datetime.now(UTC).date() > date.fromisoformat(until):
        raise LoadError(
            f"could be loaded until {until}", where=str(folder), hint="run the gate again: it is exported anew"
        )
    platform = export.default_export_platform()
    if platform not in facts["platforms"]:
        raise LoadError(
            f"was exported for {', '.join(facts['platforms'])}, this process runs on {platform}",
            where=str(folder),
            hint="export it on a machine with this kind of device",
        )
    program = export.deserialize(bytearray(artifact.file("model.jax_export").read_bytes()))
    weights = {name: jax.device_put(array) for name, array in load_file(artifact.file("weights.safetensors")).items()}
    return Loaded(artifact, read_signature(artifact.file("signature.json")), program, weights)


def batch_sizes(largest: int) -> tuple[int, ...]:
    """Return the batch sizes that are compiled: the powers of two up to ``largest``, and ``largest``."""
    sizes = [1]
    while sizes[-1] * 2 < largest:
        sizes.append(sizes[-1] * 2)
    return (*sizes, largest) if largest > 1 else (1,)


class Engine:
    """The model compiled for every batch size it will be given. Others are padded up to the next.

    ``on_compile`` is called for every program that JAX compiles in this process from ``compile`` on, whoever
    asked for it: afterwards there should be none.
    """

    def __init__(self, loaded: Loaded, sizes: tuple[int, ...]) -> None:
        self.loaded = loaded
        self.sizes = sizes
        self.on_compile: Callable[[], None] = lambda: None
        self._programs: dict[int, Any] = {}

    def compile(self) -> float:
        """Compile every batch size and run each once; return the seconds it took."""
        started = time.monotonic()
        jax.monitoring.register_event_duration_secs_listener(self._heard)
        function = jax.jit(self.loaded.program.call)
        for size in self.sizes:
            inputs = {
                tensor.name: np.zeros((size, *tensor.shape), DTYPES[tensor.datatype])
                for tensor in self.loaded.signature.inputs
            }
            self._programs[size] = function.lower(self.loaded.weights, inputs).compile()
            self.run(inputs)
        return time.monotonic() - started

    def _heard(self, event: str, duration_secs: float, **_: str | int) -> None:
        del duration_secs
        if event == COMPILED:
            self.on_compile()

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Answer a batch of 1 to the largest size: ``[batch, ...]`` a tensor."""
        count = len(next(iter(inputs.values())))
        size = next(size for size in self.sizes if size >= count)
        padded = {name: _pad(array, size - count) for name, array in inputs.items()}
        outputs = self._programs[size](self.loaded.weights, padded)
        return {name: np.asarray(array)[:count] for name, array in outputs.items()}


def _pad(array: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([array, np.zeros((rows, *array.shape[1:]), array.dtype)]) if rows else array
