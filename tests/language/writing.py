"""Texts of specs, a vocabulary like the real one, and a project to load specs from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import pytest
from pydantic import model_validator

from deploycheck.errors import DeploycheckError
from deploycheck.language import Dimension, Metric, SamplerWord, Section, Spec, SpecErrors, TaskWord, Vocabulary, load
from deploycheck.language.fields import Seconds, Share
from deploycheck.language.source import parse

MODELS = """\
from __future__ import annotations


def conv_classifier(features, classes, rngs, shape=(28, 28, 1)):
    return features, classes, rngs, shape


def anything(**given):
    return given
"""

DATA = """\
from __future__ import annotations


def digits():
    return [], []


def shift(by):
    return by
"""

MINIMAL = """\
deploycheck: 1
name: digits
model:
  build: specs.models:conv_classifier
  with: {features: [32], classes: 10}
  input: {image: {shape: [28, 28, 1], dtype: float32}}
data:
  load: specs.data:digits
train:
  optimizer: {adam: {learning_rate: 1e-3}}
  epochs: 10
  batch_size: 128
  expect:
    accuracy: ">= 97 %"
"""
"""The least that is a whole spec; tests append sections to it, or change a line of it."""


EXAMPLE = """\
# specs/digits.yaml
deploycheck: 1                        # language version; an unknown one is an error
name: digits
description: Handwritten digits for the counter tablets
owner: vision
extends: standards/edge.yaml          # a standard: defaults and thresholds; a spec may only tighten it

model:
  build: specs.models:conv_classifier # import path of a callable that returns a model
  with: {features: [32], classes: 10} # its keyword arguments
  input: {image: {shape: [28, 28, 1], dtype: float32}}

data:
  load: specs.data:digits             # import path, or one of the built-in loaders: npz, csv, parquet, ...
  split: {train: 0.8, validation: 0.1, test: 0.1, seed: 0, stratify: true}
  preprocess: [{scale: {by: 0.0625}}]
  expect:
    missing_values: "== 0"
    duplicates_across_splits: "== 0"
    smallest_class: ">= 5 %"

train:
  optimizer: {adam: {learning_rate: 1e-3}}   # any optax optimiser, by its optax name
  schedule: {cosine: {warmup: 5 %}}
  regularize: {l2: 1e-4}
  epochs: 10
  batch_size: 128
  seeds: [0, 1, 2]
  stop_early: {watch: validation.loss, patience: 3}
  expect:
    accuracy: ">= 97 %"
    accuracy.worst_class: ">= 92 %"          # a slice
    calibration_error: "<= 5 %"
    learned: ">= 50 % over majority"          # a run that never leaves chance is refused by name

compress:
  variants:                            # each is a deployable form; one can build on another
    int8: {quantize: {weights: int8, activations: int8}}
    sparse: {prune: {sparsity: 80 %}}
    sparse-int8: {from: sparse, quantize: {weights: int8}}
    half: {half: {}}
    own: {method: {'specs.models:anything': {percent: 3}}}
  expect:                              # holds for every variant; a variant may add its own
    accuracy_drop: "<= 1 pp"           # percentage points, on the same test examples
    size: "<= 60 kB"
    size_ratio: "<= 0.27"

serve:
  variants: [trained, int8]            # what is exported, started as a server, and loaded
  runtime: xla                         # xla | onnxruntime
  batching: {max_size: 32, max_delay: 2 ms}
  load: {scenario: server, arrivals: poisson, rate: 200 /s}   # MLPerf's four scenarios, by their names
  expect:
    latency.p99: "<= 20 ms @ 95 %"
    throughput: ">= 500 /s"
    errors: "== 0"
    parity: "<= 1e-4"                  # served output against the model in memory
    cold_start: "<= 10 s"
    memory: "<= 800 MB"
    recompilations: "== 0"
    speedup: {threshold: ">= 1.2 x trained", severity: warn}   # a check's long form

promote:
  registry: sqlite:registry.db         # embedded default; mlflow:URI is the same block
  model: digits
  to: staging
  choose: smallest                     # among the variants that pass every check
"""
"""The whole file of the language's page, word for word but for shortened comments."""

EDGE = """\
deploycheck: 1
name: edge
train:
  expect:
    accuracy: ">= 90 %"
"""
"""The standard that ``EXAMPLE`` extends."""


def _metric(
    name: str, dimension: Dimension, direction: str, *stages: str, percentiles: bool = False, task: str = ""
) -> Metric:
    relations = frozenset({"over majority"} if name == "learned" else ())
    over_classes = name == "accuracy.worst_class"
    return Metric(
        name,
        dimension,
        direction,
        frozenset(stages),
        percentiles=percentiles,
        relations=relations,
        task=task,
        over_classes=over_classes,
    )


METRICS = (
    _metric("accuracy", Dimension.PROPORTION, "higher", "train", "compress", task="classification"),
    _metric("rmse", Dimension.NUMBER, "lower", "train", "compress", task="regression"),
    _metric("r2", Dimension.NUMBER, "higher", "train", "compress", task="regression"),
    _metric("accuracy.worst_class", Dimension.PROPORTION, "higher", "train", "compress"),
    _metric("learned", Dimension.PROPORTION, "higher", "train"),
    _metric("accuracy_drop", Dimension.DIFFERENCE, "lower", "compress"),
    _metric("size", Dimension.SIZE, "lower", "compress"),
    _metric("size_ratio", Dimension.NUMBER, "lower", "compress"),
    _metric("latency", Dimension.TIME, "lower", "serve", percentiles=True),
    _metric("throughput", Dimension.RATE, "higher", "serve"),
    _metric("errors", Dimension.COUNT, "lower", "serve"),
    _metric("parity", Dimension.NUMBER, "lower", "serve"),
    _metric("cold_start", Dimension.TIME, "lower", "serve"),
    _metric("memory", Dimension.SIZE, "lower", "serve"),
    _metric("recompilations", Dimension.COUNT, "lower", "serve"),
    _metric("speedup", Dimension.MULTIPLE, "higher", "serve"),
    _metric("calibration_error", Dimension.PROPORTION, "lower", "train", "compress"),
    _metric("missing_values", Dimension.COUNT, "lower", "data"),
    _metric("duplicates_across_splits", Dimension.COUNT, "lower", "data"),
    _metric("smallest_class", Dimension.PROPORTION, "higher", "data"),
)


class Quantize(Section):
    """Options like those of the built-in method."""

    weights: Literal["int8"]
    activations: Literal["int8"] | None = None


class Prune(Section):
    """Options with quantities, as a plugin's method may have them."""

    sparsity: Share
    pause: Seconds = 0.0

    @model_validator(mode="after")
    def check(self) -> Self:
        if self.sparsity == 1:
            raise ValueError("keep some of the weights")
        return self


class Half(Section):
    """A method without options."""


TASKS = (
    TaskWord(
        name="classification",
        losses=("cross_entropy",),
        scores=("accuracy",),
        labels="classes",
        label_slices=True,
        most_accurate=True,
    ),
    TaskWord(
        name="regression",
        losses=("squared_error",),
        scores=("rmse",),
        labels="numbers",
        label_slices=False,
        most_accurate=False,
    ),
)


def sampler_word(name: str, **changed: Any) -> SamplerWord:
    """Return a sampler that takes everything, changed in some of it."""
    word = SamplerWord(
        name=name,
        ranges=frozenset({"log", "uniform", "integers", "choice"}),
        most_objectives=3,
        fewest_parameters=1,
        each_once=False,
    )
    return replace(word, **changed)


def inside(location: str, root: Path) -> None:
    """Refuse a registry outside of the project, as the built-in one does."""
    if len(location) > 1000:
        raise OSError("File name too long")
    if not (root / location).resolve().is_relative_to(root.resolve()):
        raise DeploycheckError(f"{location} is outside", hint="move it")


VOCABULARY = Vocabulary(
    metrics={metric.name: metric for metric in METRICS},
    loaders=dict.fromkeys(("npz", "csv", "parquet")),
    formats=frozenset({"npz", "safetensors"}),
    preprocessing=dict.fromkeys(("scale", "standardize")),
    methods={"quantize": Quantize, "prune": Prune, "half": Half},
    runtimes=frozenset({"xla", "onnxruntime"}),
    registries={"sqlite": inside, "mlflow": lambda location, root: None},
    tasks={task.name: task for task in TASKS},
    scenarios={
        "server": frozenset({"arrivals", "rate"}),
        "single_stream": frozenset(),
        "multi_stream": frozenset(),
        "offline": frozenset(),
    },
    samplers={
        word.name: word
        for word in (
            sampler_word("tpe"),
            sampler_word("random"),
            sampler_word("numbers", ranges=frozenset({"log", "uniform"}), fewest_parameters=2),
            sampler_word("grid", ranges=frozenset({"integers", "choice"}), each_once=True, most_objectives=1),
        )
    },
    unmeasured={"offline": frozenset({"latency", "error_rate"})},
)


@dataclass(frozen=True)
class Project:
    """A project with ``specs/models.py`` and ``specs/data.py``; specs are written into ``specs/``."""

    root: Path

    def write(self, text: str | bytes, name: str = "specs/spec.yaml") -> Path:
        """Write a file of the project and return its path."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def load(self, text: str | bytes, name: str = "specs/spec.yaml") -> tuple[Spec, ...]:
        """Write a spec and load it."""
        return load(self.write(text, name), self.root, VOCABULARY)

    def one(self, text: str, name: str = "specs/spec.yaml") -> Spec:
        """Load a spec that has one cell."""
        (spec,) = self.load(text, name)
        return spec

    def errors(self, text: str | bytes, name: str = "specs/spec.yaml") -> SpecErrors:
        """Load a spec that must be refused, and return why."""
        with pytest.raises(SpecErrors) as caught:
            self.load(text, name)
        return caught.value

    def refused(self, text: str | bytes, name: str = "specs/spec.yaml") -> list[str]:
        """Return each error of a refused spec as ``line: what [hint]``, after its file if that's another one."""
        return [
            f"{'' if error.place.file == name else error.place.file + ':'}{error.place.line}: {error.what}"
            + (f" [{error.hint}]" if error.hint else "")
            for error in self.errors(text, name).errors
        ]


def line_of(text: str, part: str) -> int:
    """Return the number of the one line that holds ``part``."""
    (number,) = [number for number, line in enumerate(text.splitlines(), 1) if part in line]
    return number


def plain_data(text: str) -> dict[str, Any]:
    """Return a spec's text as plain data."""
    return parse(text, Path("spec.yaml"), "spec.yaml").data


def with_model(build: str, given: str = "{}") -> str:
    """Return ``MINIMAL`` with another model."""
    return MINIMAL.replace("specs.models:conv_classifier", build).replace("{features: [32], classes: 10}", given)


def with_module(project: Project, source: str, build: str = "specs.made:build", given: str = "{}") -> str:
    """Write ``specs/made.py``, and return ``MINIMAL`` with a model from it."""
    project.write(source, "specs/made.py")
    return with_model(build, given)
