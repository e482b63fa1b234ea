"""Texts of specs, and the plans that are made of them with what is built in."""

from __future__ import annotations

from pathlib import Path

from deploycheck import builtin
from deploycheck.extensions import Extensions, collect
from deploycheck.language import Spec, load
from deploycheck.plan import Plan, make_plans

ROOT = Path(__file__).parents[1]
"""The project whose models and loaders the specs name."""

HEAD = """\
deploycheck: 1
name: digits
model:
  build: specs.models:conv_classifier
  with: {shape: [8, 8, 1], features: [32], classes: 10}
  input: {image: {shape: [8, 8, 1], dtype: float32}}
data:
  load: specs.data:digits
  expect: {missing_values: "== 0"}
train:
  optimizer: {adam: {learning_rate: 3e-3}}
  epochs: 3
  batch_size: 64
  expect: {accuracy: ">= 97 %"}
"""
"""A whole spec, to which tests append sections."""


def built_in(root: Path = ROOT) -> Extensions:
    """Return the built-in extensions, for a project."""
    return collect([(None, builtin.pytest_deploycheck_extensions())], root)


EXTENSIONS = built_in()


def specs(text: str, folder: Path, extensions: Extensions = EXTENSIONS) -> tuple[Spec, ...]:
    """Write a spec into ``folder`` and load it, one ``Spec`` for each cell of its matrix."""
    path = folder / "spec.yaml"
    path.write_text(text)
    return load(path, extensions.root, extensions.vocabulary)


def spec(text: str, folder: Path, extensions: Extensions = EXTENSIONS) -> Spec:
    """Load a spec that has one cell."""
    (loaded,) = specs(text, folder, extensions)
    return loaded


def plan(text: str, folder: Path, extensions: Extensions = EXTENSIONS) -> Plan:
    """Return the plan of a spec that has one cell."""
    (made,) = make_plans(specs(text, folder, extensions), "spec.yaml", extensions)
    return made
