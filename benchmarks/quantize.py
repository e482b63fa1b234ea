"""Latency and size of a quantised model beside its float form: one network, exported and run as a server would.

    python benchmarks/quantize.py [--width 768] [--layers 12] [--repeats 30]

All forms are measured in turn, in one process, so that a busy machine slows all of them down. Each cell is the fastest
of the repeats in ms, and how many times as fast as float32 it is. The last rows have the bytes on disk, and the
largest difference from the float outputs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deploycheck.serving.opening import open_for_serving
from deploycheck.serving.runtimes import Engine
from deploycheck.serving.runtimes.xla import XLA
from deploycheck.stages.methods.quantize import QuantizeOptions
from deploycheck.stages.model import Model, build_model, to_network
from deploycheck.stages.network import TensorSpec
from deploycheck.stages.quantization import quantize_weights
from deploycheck.store import write_manifest

FORMS: Mapping[str, Mapping[str, Any] | None] = {
    "float32": None,
    "int8": {"weights": "int8", "activations": "int8"},
    "int8 weights": {"weights": "int8"},
    "int4": {"weights": "int4", "activations": "int8"},
    "int4 weights": {"weights": "int4"},
    "int4 groups": {"weights": "int4", "per": {"group": 64}},
    "fp8 weights": {"weights": "fp8"},
}
ROWS = (1, 2, 8, 32, 128)


def network(width: int, layers: int) -> Model:
    """Return a chain of square layers."""
    random = np.random.default_rng(0)
    shape = (layers, width, width)
    kernels = [jnp.asarray(it, jnp.float32) for it in random.normal(size=shape) * np.sqrt(2 / width)]

    def apply(params: list[jax.Array], x: jax.Array) -> jax.Array:
        for kernel in params:
            x = jax.nn.relu(x @ kernel)
        return x

    inputs = {"x": jax.ShapeDtypeStruct((2, width), jnp.float32)}
    return build_model(lambda: (kernels, apply), {}, inputs, seed=0, outputs=("y",))


def opened(model: Model, width: int, folder: Path) -> tuple[Engine, int]:
    """Export a model; return its engine, compiled for every number of rows, and its bytes on disk."""
    folder.mkdir()
    preprocessed = to_network(model, lambda _, inputs: inputs, {})
    XLA.export(preprocessed, {"x": TensorSpec((width,), "float32")}, "chain", folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    write_manifest(folder, "model", "0" * 64, {})
    engine = open_for_serving(folder, (), ROWS)
    engine.compile()
    return engine, size


def main() -> None:
    """Export every form, time all of them in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=30)
    asked = parser.parse_args()
    model = network(asked.width, asked.layers)
    engines, sizes = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, options) in enumerate(FORMS.items()):
            form = quantize_weights(model, QuantizeOptions.model_validate(options)) if options else model
            engines[name], sizes[name] = opened(form, asked.width, Path(folder) / str(number))
    print("rows".ljust(16), *(name.rjust(16) for name in FORMS))
    for rows in ROWS:
        x = np.random.default_rng(rows).normal(size=(rows, asked.width)).astype(np.float32)
        best = dict.fromkeys(FORMS, float("inf"))
        for _ in range(asked.repeats):
            for name, engine in engines.items():
                started = time.perf_counter()
                engine.run({"x": x})
                best[name] = min(best[name], time.perf_counter() - started)
        cells = [f"{took * 1e3:.2f} ({best['float32'] / took:.2f} x)" for took in best.values()]
        print(str(rows).ljust(16), *(cell.rjust(16) for cell in cells))
    print("bytes / float32".ljust(16), *(f"{size / sizes['float32']:.3f}".rjust(16) for size in sizes.values()))
    outputs = {name: engine.run({"x": x})["y"] for name, engine in engines.items()}
    exact = outputs["float32"]
    moved = [np.abs(it - exact).max() / np.abs(exact).max() for it in outputs.values()]
    print("difference".ljust(16), *(f"{it:.4f}".rjust(16) for it in moved))


if __name__ == "__main__":
    main()
