"""A vocabulary like the real one, and a project in ``tmp_path`` to load specs from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from deploycheck.language import Dimension, Metric, Spec, SpecErrors, Vocabulary, load

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


def _metric(
    name: str, dimension: Dimension, direction: str, *stages: str, percentiles: bool = False, target: str = ""
) -> Metric:
    relations = frozenset({"over majority"} if name == "learned" else ())
    over_classes = name == "accuracy.worst_class"
    return Metric(name, dimension, direction, frozenset(stages), percentiles, relations, target, over_classes)


METRICS = (
    _metric("accuracy", Dimension.PROPORTION, "higher", "train", "compress", target="class"),
    _metric("rmse", Dimension.NUMBER, "lower", "train", "compress", target="number"),
    _metric("r2", Dimension.NUMBER, "higher", "train", "compress", target="number"),
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

VOCABULARY = Vocabulary(
    metrics={metric.name: metric for metric in METRICS},
    loaders=frozenset({"npz", "csv", "parquet"}),
    steps=frozenset({"scale", "standardize"}),
    compressors=frozenset({"quantize", "prune", "distill"}),
    runtimes=frozenset({"xla", "onnxruntime"}),
    registries=frozenset({"sqlite", "mlflow"}),
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


@pytest.fixture
def vocabulary() -> Vocabulary:
    return VOCABULARY


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.write("", "specs/__init__.py")
    made.write(MODELS, "specs/models.py")
    made.write(DATA, "specs/data.py")
    return made


def line_of(text: str, part: str) -> int:
    """Return the number of the one line that holds ``part``."""
    (number,) = [number for number, line in enumerate(text.splitlines(), 1) if part in line]
    return number
