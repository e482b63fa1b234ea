"""Whether a sampler that learns finds better settings than random search at equal trials, on digits.

    python benchmarks/search.py [SAMPLER ...]

For each sampler and seed, one search through the gate's own step: how low the loss on the validation split gets after
each trial. Printed are the medians over the seeds, and how often the sampler ended below random search with the same
seed.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path

import jax

from deploycheck import builtin
from deploycheck.extensions import collect
from deploycheck.language.optimize import Optimize
from deploycheck.language.spec import Input, Split, Train
from deploycheck.stages.trials import COMPLETE, TRIALS
from deploycheck.steps.data import DataSettings, DataStep
from deploycheck.steps.kind import Making
from deploycheck.steps.search import SearchSettings, SearchStep
from deploycheck.store import Artifact, write_manifest

ROOT = Path(__file__).parents[1]
SEEDS, TRIALS_EACH, SHOWN = range(5), 20, (5, 10, 15, 20)
INPUT = {"image": Input(shape=(8, 8, 1), dtype="float32")}
PREPROCESS = (("scale", {"by": 0.0625}),)
TRAIN = {"optimizer": {"adam": {"learning_rate": 1e-3}}, "epochs": 4, "batch_size": 64}
SPACE = {
    "train.optimizer.adam.learning_rate": {"log": [1e-5, 1.0]},
    "train.regularize.l2": {"log": [1e-6, 1.0]},
    "train.regularize.l1": {"log": [1e-6, 1.0]},
    "model.with.features": {"choice": [[4], [16], [4, 16]]},
}


def making(folder: Path, settings: DataSettings | SearchSettings, inputs: Mapping[str, Artifact]) -> Making:
    """Return what a step is given."""
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True)
    return Making(
        settings=settings,
        inputs=inputs,
        out=folder / "out",
        scratch=folder / "scratch",
        kept=folder / "kept",
        progress=say_nothing,
        extensions=collect([(None, builtin.pytest_deploycheck_extensions())], ROOT),
    )


def say_nothing(line: str) -> None:
    """Show no progress."""


def load_digits(folder: Path) -> Artifact:
    """Return the data, half of it for training."""
    settings = DataSettings(
        load="specs.data:digits",
        arguments={},
        split=Split(train=0.5, validation=0.4, test=0.1),
        preprocess=PREPROCESS,
        input=INPUT,
        task="classification",
    )
    given = making(folder, settings, {})
    return write_manifest(given.out, "data", "0" * 64, DataStep().make(given))


def losses(sampler: str, seed: int, data: Artifact, folder: Path) -> list[float]:
    """Return the lowest loss after each trial of one search."""
    search = {"sampler": sampler, "trials": TRIALS_EACH, "minimize": "validation.loss", "seed": seed}
    settings = SearchSettings(
        build="specs.models:conv_classifier",
        arguments={"shape": [8, 8, 1], "features": [16], "classes": 10},
        input=INPUT,
        task="classification",
        preprocess=PREPROCESS,
        train=Train.model_validate(TRAIN),
        optimize=Optimize.model_validate({"search": search, "space": SPACE}),
    )
    given = making(folder, settings, {"data": data})
    SearchStep().make(given)
    trials = json.loads((given.out / TRIALS).read_text())
    values = (trial["values"][0] if trial["ended"] == COMPLETE else float("inf") for trial in trials)
    return list(accumulate(values, min))


def main() -> None:
    """Search with each sampler and seed, and print the medians."""
    samplers = dict.fromkeys(["random", *(sys.argv[1:] or ["tpe", "gp", "nsga2"])])
    found: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        data = load_digits(folder / "data")
        print(f"lowest validation loss after so many trials, median of {len(SEEDS)} seeds")
        print("| sampler |", " | ".join(map(str, SHOWN)), "| below random | seconds per search |")
        print("| --- |", " | ".join("---" for _ in SHOWN), "| --- | --- |")
        for sampler in samplers:
            began = time.perf_counter()
            found[sampler] = [losses(sampler, seed, data, folder / f"{sampler}-{seed}") for seed in SEEDS]
            took = (time.perf_counter() - began) / len(SEEDS)
            medians = [statistics.median(each[count - 1] for each in found[sampler]) for count in SHOWN]
            wins = sum(own[-1] < other[-1] for own, other in zip(found[sampler], found["random"], strict=True))
            shown = " | ".join(f"{median:.4f}" for median in medians)
            print(f"| `{sampler}` | {shown} | {wins} of {len(SEEDS)} | {took:.0f} |", flush=True)


if __name__ == "__main__":
    main()
