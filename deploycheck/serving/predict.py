"""Answers of an exported artifact to a whole split, by the engine that a server would use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from deploycheck.serving.opening import open_for_serving
from deploycheck.store.arrays import write_arrays

BATCH = 64


def predict(artifact: Path, examples: Path, answers: Path, extensions: Sequence[Path] = ()) -> None:
    """Answer all examples, and write the answers.

    ``examples`` is a safetensors file with ``inputs/NAME``, each ``[n, ...]``; ``answers`` becomes one with an array
    for each output, by the output's name. What the artifact holds may crash this process.
    """
    engine = open_for_serving(artifact, extensions, (BATCH,))
    engine.compile()
    arrays = load_file(examples)
    inputs = {tensor.name: arrays[f"inputs/{tensor.name}"] for tensor in engine.signature.inputs}
    count = len(next(iter(inputs.values())))
    parts = [
        engine.run({name: array[start : start + BATCH] for name, array in inputs.items()})
        for start in range(0, count, BATCH)
    ]
    write_arrays({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, answers)
