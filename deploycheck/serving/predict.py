"""``python -m deploycheck.serving.predict ARTIFACT EXAMPLES ANSWERS``: answer a split with an exported artifact.

It is a separate process, because what it loads may be damaged enough to crash it. EXAMPLES is a safetensors file
with ``inputs/NAME``; ANSWERS becomes one with an array for each output, by the output's name.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from deploycheck.errors import DeploycheckError
from deploycheck.serving.opening import open_for_serving
from deploycheck.store.arrays import write_arrays

BATCH = 64


def predict(artifact: Path, examples: Path, answers: Path, extensions: Sequence[Path] = ()) -> None:
    """Answer all examples by the engine that a server would use, and write the answers."""
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


def main(arguments: Sequence[str]) -> None:
    """Read the command line, and answer."""
    parser = argparse.ArgumentParser(prog="python -m deploycheck.serving.predict")
    for name in ("artifact", "examples", "answers"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--extensions", type=Path, metavar="FILE", action="append", default=[])
    parsed = parser.parse_args(arguments)
    try:
        predict(parsed.artifact, parsed.examples, parsed.answers, parsed.extensions)
    except DeploycheckError as error:
        sys.exit(f"{error.where}: {error.what}")
    except Exception as error:  # of a runtime that isn't ours, or of the program that it loads
        traceback.print_exc()
        sys.exit(f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}")


if __name__ == "__main__":
    main(sys.argv[1:])
