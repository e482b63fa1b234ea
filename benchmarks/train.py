"""Training a user's own convolutional network: here, in a plain Flax loop, and in Keras and PyTorch.

8,000 images of 28×28, batches of 128, Adam. Each framework trains in a process of its own, in turn, for several rounds;
the least seconds of an epoch after the first are compared. Prints a table, with the ratio to the best of the others.
Keras and PyTorch are measured where ``--peers`` names a Python that has them.

    python benchmarks/train.py [--rounds 3] [--epochs 3] [--peers PYTHON]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

COUNT, BATCH, CLASSES = 8_000, 128, 10
NETWORKS = {"one convolution": (32,), "three convolutions": (32, 64, 128)}
OURS, PEERS = ("deploycheck", "not lowered", "flax loop"), ("keras", "pytorch")


def images() -> tuple[np.ndarray, np.ndarray]:
    """Return images ``[n, 28, 28, 1]`` and their classes ``[n]``; how fast a training is doesn't depend on them."""
    random = np.random.default_rng(0)
    return random.normal(size=(COUNT, 28, 28, 1)).astype(np.float32), np.arange(COUNT) % CLASSES


def network(widths: tuple[int, ...]) -> Any:
    """Return a model as its user writes it: convolutions 3×3 with relu, each pooled by 2, and a dense layer."""
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            before = (1, *widths)
            self.convolutions = nnx.List(
                nnx.Conv(a, b, (3, 3), rngs=rngs) for a, b in zip(before, widths, strict=False)
            )
            self.out = nnx.Linear((28 >> len(widths)) ** 2 * widths[-1], CLASSES, rngs=rngs)

        def __call__(self, image: Any) -> Any:
            for convolution in self.convolutions:
                image = nnx.max_pool(nnx.relu(convolution(image)), (2, 2), strides=(2, 2))
            return self.out(image.reshape(image.shape[0], -1))

    return Net


def deploycheck(widths: tuple[int, ...], epochs: int) -> Iterator[float]:
    """Yield the seconds of each epoch of the project's own training."""
    import tempfile

    import jax

    from deploycheck.stages import train
    from deploycheck.stages.examples import Examples
    from deploycheck.stages.model import build_model
    from deploycheck.stages.recipe import Recipe
    from deploycheck.stages.tasks.classification import CLASSIFICATION

    pixels, labels = images()
    few = Examples({"image": pixels[:BATCH]}, labels[:BATCH])
    recipe = Recipe(optimizer="adam", options={"learning_rate": 1e-3}, epochs=epochs, batch_size=BATCH)
    job = train.Job(
        examples={"train": Examples({"image": pixels}, labels), "validation": few},
        task=CLASSIFICATION,
        recipe=recipe,
        loss=CLASSIFICATION.losses["cross_entropy"],
    )
    shapes = {"image": jax.ShapeDtypeStruct((2, 28, 28, 1), np.float32)}
    model = build_model(network(widths), {}, shapes, seed=0, outputs=("logits",))
    ends = [time.monotonic()]
    with tempfile.TemporaryDirectory() as scratch:
        train.fit(model, job, 0, Path(scratch), lambda _: ends.append(time.monotonic()))
    yield from np.diff(ends)


def not_lowered(widths: tuple[int, ...], epochs: int) -> Iterator[float]:
    """Yield those of the same training with the user's own convolutions."""
    from deploycheck.stages import train

    train.lowered = lambda function: function  # type: ignore[assignment]
    yield from deploycheck(widths, epochs)


def flax_loop(widths: tuple[int, ...], epochs: int) -> Iterator[float]:
    """Yield those of a loop as Flax's documentation writes it: one compiled step, called for each batch."""
    import optax
    from flax import nnx

    pixels, labels = images()
    model = network(widths)(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any, image: Any, label: Any) -> Any:
        def loss(model: Any) -> Any:
            return optax.softmax_cross_entropy_with_integer_labels(model(image), label).mean()

        value, gradient = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradient)
        return value

    random = np.random.default_rng(0)
    for _ in range(epochs):
        started = time.monotonic()
        order = random.permutation(COUNT)
        for start in range(0, COUNT - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            value = step(model, optimizer, pixels[rows], labels[rows])
        float(value)
        yield time.monotonic() - started


def keras(widths: tuple[int, ...], epochs: int) -> Iterator[float]:
    """Yield those of ``Model.fit`` on TensorFlow."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    layers: list[Any] = [keras.layers.Input((28, 28, 1))]
    for width in widths:
        layers += [keras.layers.Conv2D(width, 3, padding="same", activation="relu"), keras.layers.MaxPooling2D()]
    model = keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(CLASSES)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    pixels, labels = images()
    for _ in range(epochs):
        started = time.monotonic()
        model.fit(pixels, labels, batch_size=BATCH, verbose=0)
        yield time.monotonic() - started


def pytorch(widths: tuple[int, ...], epochs: int) -> Iterator[float]:
    """Yield those of PyTorch's usual loop."""
    import torch

    before, layers = 1, []
    for width in widths:
        layers += [torch.nn.Conv2d(before, width, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
        before = width
    model = torch.nn.Sequential(
        *layers, torch.nn.Flatten(), torch.nn.Linear((28 >> len(widths)) ** 2 * before, CLASSES)
    )
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    pixels, labels = images()
    image, label = torch.tensor(pixels.transpose(0, 3, 1, 2).copy()), torch.tensor(labels)
    for _ in range(epochs):
        started = time.monotonic()
        order = torch.randperm(COUNT)
        for start in range(0, COUNT - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(image[rows]), label[rows]).backward()
            optimizer.step()
        yield time.monotonic() - started


RUNS: dict[str, Callable[[tuple[int, ...], int], Iterator[float]]] = {
    "deploycheck": deploycheck,
    "not lowered": not_lowered,
    "flax loop": flax_loop,
    "keras": keras,
    "pytorch": pytorch,
}


def measure(name: str, network: str, epochs: int, python: str) -> float:
    """Return the least seconds of an epoch, the first left out, in a process of its own."""
    command = [python, __file__, "--one", name, network, str(epochs + 1)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(min(json.loads(done.stdout.splitlines()[-1])[1:]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--peers", help="a Python that has keras, tensorflow and torch")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        name, network, epochs = given.one
        print(json.dumps(list(RUNS[name](NETWORKS[network], int(epochs)))))
        return
    pythons = {**dict.fromkeys(OURS, sys.executable), **dict.fromkeys(PEERS if given.peers else (), given.peers)}
    for network in NETWORKS:
        seconds: dict[str, list[float]] = {name: [] for name in pythons}
        for _ in range(given.rounds):
            for name, python in pythons.items():
                seconds[name].append(measure(name, network, given.epochs, python))
        best = {name: min(found) for name, found in seconds.items()}
        other = min(best[name] for name in best if name not in ("deploycheck", "not lowered"))
        print(f"{network}: {best['deploycheck'] / other:.2f} of the best of the others")
        for name, found in best.items():
            print(f"  {name:12} {found:7.2f} s an epoch")


if __name__ == "__main__":
    main()
