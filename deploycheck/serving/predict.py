"""Answers of an exported artifact to a whole split, by the engine that a server would use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from deploycheck.serving.runtimes import Engine
from deploycheck.store.arrays import write_arrays

BATCH = 64


def predict(engine: Engine, examples: Path, answers: Path) -> None:
    """Answer all examples in batches of ``BATCH``, and write the answers.

    ``examples`` is a safetensors file with ``inputs/NAME``, each ``[n, ...]``; ``answers`` becomes one with an array
    for each output, by the output's name. The last batch is padded with zeros to the size of the others, so that one
    program answers all. What the artifact holds may crash this process.
    """
    arrays = load_file(examples)
    inputs = {tensor.name: arrays[f"inputs/{tensor.name}"] for tensor in engine.signature.inputs}
    count = len(next(iter(inputs.values())))
    parts = []
    for start in range(0, count, BATCH):
        size = min(BATCH, count - start)
        outputs = engine.run({name: _padded(array[start : start + size]) for name, array in inputs.items()})
        parts.append({name: array[:size] for name, array in outputs.items()})
    write_arrays({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, answers)


def _padded(array: np.ndarray) -> np.ndarray:
    return np.concatenate([array, np.zeros((BATCH - len(array), *array.shape[1:]), array.dtype)])
