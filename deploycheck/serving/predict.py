"""``python -m deploycheck.serving.predict ARTIFACT EXAMPLES ANSWERS``: answer a split with an exported artifact.

A process of its own, because what it loads may be damaged enough to crash it. EXAMPLES is a safetensors file with
``inputs/NAME``; ANSWERS becomes one with an array for each output.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from deploycheck.errors import DeploycheckError
from deploycheck.serving.runtime import Engine, load
from deploycheck.store.arrays import write_arrays

BATCH = 64


def main(artifact: Path, examples: Path, answers: Path) -> None:
    """Load, answer all examples, write the answers."""
    engine = Engine(load(artifact), (BATCH,))
    engine.compile()
    arrays = load_file(examples)
    inputs = {tensor.name: arrays[f"inputs/{tensor.name}"] for tensor in engine.loaded.signature.inputs}
    count = len(next(iter(inputs.values())))
    parts = [
        engine.run({name: array[start : start + BATCH] for name, array in inputs.items()})
        for start in range(0, count, BATCH)
    ]
    write_arrays({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, answers)


if __name__ == "__main__":
    try:
        main(*map(Path, sys.argv[1:]))
    except DeploycheckError as error:
        sys.exit(f"{error.where}: {error.what}")
