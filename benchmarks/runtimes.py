"""The runtimes side by side: three models, in float and in int8, on XLA and on onnxruntime, in one run.

Each row is one exported model. Its answers are timed at three batch sizes, all models of a kind in turn, so that what
else the machine does meets all of them. The figure is the least of the times; the last column is how far the answers
are from those of the float model on XLA, as a share of the largest.

    python benchmarks/runtimes.py [--rounds 7] [--width 512] [--layers 7]
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from deploycheck.serving.opening import open_compiled
from deploycheck.serving.runtimes import BUILT_IN, Engine, Runtime
from deploycheck.stages.methods.quantize import QuantizeOptions
from deploycheck.stages.model import Model, build_model, to_network
from deploycheck.stages.network import TensorSpec
from deploycheck.stages.quantization import quantize_weights
from deploycheck.store import write_manifest

BATCHES = (1, 8, 32)
TOKENS, VOCABULARY = 64, 2000


class Block(nnx.Module):
    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.before, self.after = nnx.LayerNorm(width, rngs=rngs), nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(num_heads=8, in_features=width, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(width, 4 * width, rngs=rngs), nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(self.before(x))
        return x + self.down(nnx.gelu(self.up(self.after(x))))


class Encoder(nnx.Module):
    def __init__(self, width: int, layers: int, rngs: nnx.Rngs) -> None:
        self.embedding = nnx.Embed(VOCABULARY, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, rngs) for _ in range(layers)])
        self.out = nnx.Linear(width, 10, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.out(x.mean(axis=1))


class Mlp(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([nnx.Linear(784, 2048, rngs=rngs), nnx.Linear(2048, 2048, rngs=rngs)])
        self.out = nnx.Linear(2048, 10, rngs=rngs)

    def __call__(self, image: jax.Array) -> jax.Array:
        x = image.reshape(image.shape[0], -1)
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.out(x)


class Cnn(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        sizes = (1, 32, 64, 128)
        self.convs = nnx.List([nnx.Conv(a, b, (3, 3), rngs=rngs) for a, b in itertools.pairwise(sizes)])
        self.out = nnx.Linear(128 * 9, 10, rngs=rngs)

    def __call__(self, image: jax.Array) -> jax.Array:
        for conv in self.convs:
            image = nnx.max_pool(nnx.relu(conv(image)), (2, 2), strides=(2, 2))
        return self.out(image.reshape(image.shape[0], -1))


@dataclass(frozen=True)
class Row:
    """An exported model, opened, and the size of its files."""

    engine: Engine
    size: int


def rows_of(build: Callable[..., Any], inputs: Mapping[str, TensorSpec], folder: Path) -> dict[tuple[str, str], Row]:
    """Return a model in every precision on every runtime, by both."""
    shapes = {name: jax.ShapeDtypeStruct((2, *each.shape), np.dtype(each.dtype)) for name, each in inputs.items()}
    model = build_model(build, {}, shapes, seed=0, outputs=("logits",))
    forms: dict[str, Model] = {
        "float32": model,
        "int8 weights": quantize_weights(model, QuantizeOptions(weights="int8")),
        "int8": quantize_weights(model, QuantizeOptions(weights="int8", activations="int8")),
    }
    return {
        (precision, runtime.name): export(form, inputs, runtime, folder / f"{precision}-{runtime.name}", BATCHES)
        for precision, form in forms.items()
        for runtime in BUILT_IN
    }


def export(
    model: Model, inputs: Mapping[str, TensorSpec], runtime: Runtime, folder: Path, batches: tuple[int, ...]
) -> Row:
    """Return a model exported for a runtime, opened."""
    folder.mkdir(parents=True)
    runtime.export(to_network(model, lambda _, given: given, {}), inputs, "model", folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    write_manifest(folder, "model", "0" * 64, {})
    return Row(open_compiled(folder, (), batches), size)


def times_of(rows: list[Row], batch: Mapping[str, np.ndarray], rounds: int) -> list[float]:
    """Return the least time that each model takes for a batch, in ms; they take turns."""
    best = [float("inf")] * len(rows)
    for _ in range(rounds):
        for at, row in enumerate(rows):
            for _ in range(3):
                started = time.perf_counter()
                row.engine.run(batch)
                best[at] = min(best[at], 1e3 * (time.perf_counter() - started))
    return best


def batch_of(inputs: Mapping[str, TensorSpec], count: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(count)
    return {
        name: random.integers(0, VOCABULARY, (count, *each.shape)).astype(np.int32)
        if each.dtype == "int32"
        else random.normal(size=(count, *each.shape)).astype(np.float32)
        for name, each in inputs.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=7)
    chosen = parser.parse_args()
    image = {"image": TensorSpec((28, 28, 1), "float32")}
    kinds: dict[str, tuple[Callable[..., Any], dict[str, TensorSpec]]] = {
        "encoder": (
            lambda rngs: Encoder(chosen.width, chosen.layers, rngs),
            {"tokens": TensorSpec((TOKENS,), "int32")},
        ),
        "mlp": (lambda rngs: Mlp(rngs), image),
        "cnn": (lambda rngs: Cnn(rngs), image),
    }
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| model | precision | runtime | MB | " + " | ".join(f"ms for {size}" for size in BATCHES) + " | distance |")
    print("| --- | --- | --- | --- |" + " --- |" * (len(BATCHES) + 1))
    for kind, (build, inputs) in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            found = rows_of(build, inputs, Path(folder))
            rows = list(found.values())
            columns = [times_of(rows, batch_of(inputs, size), chosen.rounds) for size in BATCHES]
            answers = [row.engine.run(batch_of(inputs, BATCHES[-1]))["logits"] for row in rows]
        for at, ((precision, runtime), row) in enumerate(found.items()):
            distance = np.abs(answers[at] - answers[0]).max() / np.abs(answers[0]).max()
            spent = " | ".join(f"{column[at]:.2f}" for column in columns)
            megabytes = row.size / 1e6
            print(f"| {kind} | {precision} | {runtime} | {megabytes:.2f} | {spent} | {distance:.1e} |", flush=True)


if __name__ == "__main__":
    main()
