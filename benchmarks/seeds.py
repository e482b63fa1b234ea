"""Whether the seeds of a training are faster together, under ``jax.vmap``, than one after the other.

    python benchmarks/seeds.py [--seeds 5] [--rounds 5]

The compiled epoch of the project's own training, for the models of the example specs and a convolutional network of
28×28 images; once for each seed, and once for all seeds at once. Both take turns, and the least seconds count.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from train import network as convolutions

from deploycheck.stages.examples import Examples
from deploycheck.stages.model import build_model
from deploycheck.stages.recipe import Recipe, rates_of
from deploycheck.stages.tasks.classification import CLASSIFICATION
from deploycheck.stages.train import Job, compile_epoch, transform_of
from specs.models import conv_classifier, dense_classifier, speaker_classifier

Shape = tuple[int, ...]
MODELS: dict[str, tuple[Callable[..., Any], dict[str, Any], dict[str, Shape], int, int]] = {
    "medical": (dense_classifier, {"features": 30, "hidden": [32, 32], "classes": 2}, {"features": (30,)}, 228, 32),
    "digits": (
        conv_classifier,
        {"shape": [8, 8, 1], "features": [32, 64], "classes": 10},
        {"image": (8, 8, 1)},
        900,
        64,
    ),
    "speech": (
        speaker_classifier,
        {"dimensions": 12, "width": 400, "depth": 3, "classes": 9},
        {"frames": (29, 12), "present": (29,)},
        256,
        32,
    ),
    "one convolution": (convolutions((32,)), {}, {"image": (28, 28, 1)}, 2000, 128),
}
"""What builds each model, with its arguments, inputs, number of examples and batch size."""


def measure(name: str, seeds: int, rounds: int) -> tuple[float, float]:
    """Return the least seconds of an epoch of all seeds: one after the other, and together."""
    build, arguments, inputs, count, batch = MODELS[name]
    random = np.random.default_rng(0)
    arrays = {key: random.normal(size=(count, *shape)).astype(np.float32) for key, shape in inputs.items()}
    arrays = {key: array > -1 if key == "present" else array for key, array in arrays.items()}
    labels = np.arange(count) % 2
    shapes = {key: jax.ShapeDtypeStruct((2, *array.shape[1:]), array.dtype) for key, array in arrays.items()}
    models = [build_model(build, arguments, shapes, seed=seed, outputs=("logits",)) for seed in range(seeds)]
    recipe = Recipe(optimizer="adam", options={"learning_rate": 1e-3}, epochs=1, batch_size=batch)
    examples = Examples(arrays, labels)
    job = Job(
        examples={"train": examples, "validation": examples},
        task=CLASSIFICATION,
        recipe=recipe,
        loss=CLASSIFICATION.losses["cross_entropy"],
    )
    init, epoch = transform_of(job, recipe).init, compile_epoch(models[0], job)
    fixed = ({key: jnp.asarray(array) for key, array in arrays.items()}, jnp.asarray(labels))
    carries = [(model.params, model.state, init(model.params)) for model in models]
    keys = [jax.random.key(seed) for seed in range(seeds)]
    together = jax.jit(jax.vmap(epoch, in_axes=(0, None, None, 0, None)))
    stacked, all_keys = jax.tree.map(lambda *each: jnp.stack(each), *carries), jnp.stack(keys)
    rates = rates_of(recipe)

    def in_turn() -> Any:  # each epoch takes the arrays that it is given
        carries[:] = [epoch(carry, *fixed, key, rates)[0] for carry, key in zip(carries, keys, strict=True)]
        return carries

    def at_once() -> Any:
        return together(stacked, *fixed, all_keys, rates)

    best = [float("inf"), float("inf")]
    for round in range(rounds + 1):  # the first compiles
        for at, run in enumerate((in_turn, at_once)):
            started = time.perf_counter()
            jax.block_until_ready(run())
            best[at] = min(best[at], time.perf_counter() - started) if round else best[at]
    return best[0], best[1]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; an epoch of {asked.seeds} seeds\n")
    print("| model | one after the other, s | together, s | faster |\n| --- | ---: | ---: | ---: |")
    for name in MODELS:
        turns, once = measure(name, asked.seeds, asked.rounds)
        print(f"| {name} | {turns:.4f} | {once:.4f} | {turns / once:.2f} x |", flush=True)


if __name__ == "__main__":
    main()
