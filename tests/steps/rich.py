"""A spec that uses every part of the language, and the steps behind it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from deploycheck.extensions import Extensions
from deploycheck.language.fields import Section
from deploycheck.plan import Plan, checks_of, make_plan, with_needs
from deploycheck.ref import Ref
from deploycheck.steps import STEP_KINDS
from tests.planning import built_in, spec

SPEC = """\
deploycheck: 1
name: digits
description: Handwritten digits
owner: vision
confidence: 90 %
metrics:
  sure: {use: project_code:sure, kind: proportion, direction: lower, with: {over: 0.9}}
model:
  build: project_code:build
  with: {features: [32], wide: true, head: {bias: null}}
  input: {image: {shape: [8, 8], dtype: float32}}
  weights: {load: npz, path: start.npz, names: project_code:named}
data:
  load: project_code:digits
  with: {rows: 100}
  split: {train: 0.5, validation: 0.1, test: 0.4, seed: 1, stratify: false}
  preprocess: [{scale: {by: 0.0625}}]
  expect: {missing_values: "== 0"}
train:
  loss: cross_entropy
  optimizer: {adam: {learning_rate: 3e-3}}
  schedule: {cosine: {warmup: 5 %, end: 1 %}}
  regularize: {l1: 1e-5, l2: 1e-4}
  epochs: 3
  batch_size: 64
  seeds: [0, 1]
  stop_early: {watch: validation.loss, patience: 5}
  expect: {accuracy: ">= 97 %", sure: "<= 3 %"}
optimize:
  search: {sampler: random, trials: 7, maximize: validation.accuracy}
  space: {train.optimizer.adam.b1: {uniform: [0.9, 0.99]}}
compress:
  variants:
    int8: {quantize: {weights: int8}}
    smaller: {from: int8, method: {"project_code:METHOD": {by: 2}}}
    found: {search: {within: {sure: "<= 4 %"}, over: [int8, {method: {"project_code:SEARCHED": {by: 5}}}]}}
  expect: {size: "<= 10 kB", accuracy: {threshold: ">= 90 %", slices: {by: label, at_least: 9}}}
  properties: [finite, {bounded: {low: -9.0, label: low}}, {"project_code:PROPERTY": {examples: 5}}]
serve:
  variants: [trained, int8]
  runtime: xla
  batching: {max_size: 16, max_delay: 1 ms}
  load: {scenario: server, arrivals: constant, rate: 50 /s, requests: 400, min_duration: 2 s, seed: 3}
  expect:
    latency.p99: "<= 20 ms"
    throughput: {threshold: ">= 5 /s", severity: warn}
    latency.p50: "<= 110 % of baseline @ 99 %"
  properties: [deterministic]
promote:
  registry: sqlite:registry.db
  model: digits
  to: staging
  choose: smallest
  baseline: optional
waive:
  train.accuracy: {because: known, until: 2020-01-01, by: vision}
"""

SPEC_OF_A_FILE = SPEC.replace(
    """\
  build: project_code:build
  with: {features: [32], wide: true, head: {bias: null}}
""",
    f"""\
  artifact: net.onnx
  sha256: {"ab" * 32}
""",
).replace("  weights: {load: npz, path: start.npz, names: project_code:named}\n", "")
"""The same of a model that is a file, which has no code and no other weights."""

CODE = """\
def build(features, wide, head): ...
def build_another(features, wide, head): ...
def digits(rows): ...
def letters(rows): ...
def named(arrays): ...
def sure(labels, outputs, over): ...
METHOD = OTHER = PROPERTY = SEARCHED = None
"""


class OtherRuntime:
    """A second runtime, by name alone."""

    name = "other"
    lasts: timedelta | None = None

    def export(self, network: Any, inputs: Any, name: str, folder: Path) -> None:
        raise AssertionError

    def engine(self, artifact: Any, sizes: Any) -> Any:
        raise AssertionError


def extensions_of(root: Path) -> Extensions:
    """Return the built-in extensions and a second runtime, for the project that the spec belongs to."""
    (root / "project_code.py").write_text(CODE)
    (root / "start.npz").touch()
    (root / "net.onnx").touch()
    found = built_in(root)
    return replace(found, runtimes={**found.runtimes, "other": OtherRuntime()})


def rich_plan(root: Path, text: str = SPEC) -> Plan:
    """Return the plan of the spec, with the steps that no check needs too."""
    extensions = extensions_of(root)
    made = make_plan(spec(text, root, extensions), "spec.yaml", extensions)
    others = [Ref("noise", ("int8",)), Ref("forms")]
    return replace(made, steps={**made.steps, **with_needs(made.spec, others, extensions)})


def settings_of(plan: Plan, ref: Ref) -> Section:
    """Return the settings of a step of a plan."""
    return STEP_KINDS[ref.kind].settings(plan.spec, ref, checks_of(plan, ref))


def other(value: Any) -> Iterator[Any]:
    """Yield values that each differ from a value in one part of it."""
    match value:
        case bool():
            yield not value
        case int() | float():
            yield value + 1
        case str():
            yield f"{value}x"
        case None:
            yield "something"
        case dict():
            for name, part in value.items():
                yield from ({**value, name: changed} for changed in other(part))
            yield {**value, "another": 1}
        case list() | tuple():
            for at, part in enumerate(value):
                yield from ([*value[:at], changed, *value[at + 1 :]] for changed in other(part))
            yield [*value, "another"]
        case _:
            raise AssertionError(f"no other value of {value!r}")
