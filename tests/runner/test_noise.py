"""What an artifact measures against itself, and what is remembered of it."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.plan import Plan
from deploycheck.ref import Ref
from deploycheck.runner.execute import Done
from deploycheck.runner.noise import FILE, Floor, Noise, floors_of, measure_noise, remember
from deploycheck.serving import load_report
from deploycheck.serving.load_report import Disturbance, LoadReport
from deploycheck.steps.noise import SIDES
from deploycheck.store import Artifact
from tests.planning import EXTENSIONS, HEAD, plan

SERVED = """\
compress: {variants: {int8: {quantize: {weights: int8}}, again: {quantize: {weights: int8}}}}
serve:
  variants: [int8, again]
  load: {rate: 1000 /s, requests: 400}
  expect:
    throughput: ">= 99.99 % of baseline"
    latency.p90: "<= 100000 % of baseline"
    errors: "== 0"
promote: {model: digits, to: staging}
"""
FLOORS = (
    Floor(metric="throughput", ratio=1.0, low=0.98, high=1.02, smallest=0.02),
    Floor(metric="errors", ratio=1.0, low=0.0, high=2.0, smallest=math.inf),
)
SEEN = Noise("int8", "in turn", 0, FLOORS)
ROUNDS = 12
A = LoadReport(
    latencies_s=tuple(0.001 + 0.0001 * (row % 7) for row in range(60 * ROUNDS)),
    rounds=(60,) * ROUNDS,
    requests_per_s=tuple(100.0 + row % 3 for row in range(ROUNDS)),
    saturation="in turn A B B A, 12 rounds",
    disturbed=(Disturbance(0.0, 1.0, "other processes took 40 % of the machine"),),
)
B = replace(A, requests_per_s=tuple(100.0 + (row + 1) % 3 for row in range(ROUNDS)))


class Measured:
    """A runner whose noise step was done before: it wrote these reports."""

    extensions = EXTENSIONS

    def __init__(self, folder: Path, reports: Mapping[str, LoadReport]) -> None:
        load_report.write(reports, folder)
        self.folder = folder
        self.asked: list[Ref] = []

    def step(self, plan: Plan, ref: Ref) -> Done:
        assert set(plan.steps[ref].values()) <= plan.steps.keys()
        self.asked.append(ref)
        artifact = Artifact(path=self.folder, kind="noise", key="0" * 64, digest="sha256:", files={}, meta={})
        return Done(artifact=artifact, reused=False, seconds=0.0)


@pytest.fixture
def measured(tmp_path: Path) -> Measured:
    return Measured(tmp_path, dict(zip(SIDES, (A, B), strict=True)))


@pytest.mark.parametrize(("variant", "measures"), [(None, "int8"), ("again", "again")])
def test_a_variant_is_compared_with_itself_the_first_where_none_is_named(
    variant: str | None, measures: str, measured: Measured, tmp_path: Path
) -> None:
    noise = measure_noise(measured, plan(HEAD + SERVED, tmp_path), variant)  # type: ignore[arg-type]
    assert measured.asked == [Ref("noise", (measures,))]
    assert (noise.variant, noise.schedule, noise.disturbed) == (measures, "in turn A B B A, 12 rounds", 1)


def test_the_smallest_visible_regression_is_where_the_bounds_end(measured: Measured, tmp_path: Path) -> None:
    noise = measure_noise(measured, plan(HEAD + SERVED, tmp_path), None)  # type: ignore[arg-type]
    floors = {floor.metric: floor for floor in noise.floors}
    assert list(floors) == ["throughput", "latency.p50", "latency.p99", "latency.p90"]  # nothing of the errors
    assert all(floor.low <= floor.ratio <= floor.high for floor in floors.values())
    assert floors["throughput"].smallest == 1 - floors["throughput"].low > 0
    assert floors["latency.p50"].smallest == floors["latency.p50"].high - 1
    assert floors["latency.p99"].smallest == math.inf  # too few rounds for this percentile


@pytest.mark.parametrize(
    ("text", "variant", "says"),
    [
        (HEAD + SERVED, "int4", "spec.yaml: it doesn't serve int4\n  hint: there are: int8, again"),
        (HEAD, None, "spec.yaml: it has no `serve`: nothing in it is timed"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    text: str, variant: str | None, says: str, measured: Measured, tmp_path: Path
) -> None:
    with pytest.raises(DeploycheckError) as refused:
        measure_noise(measured, plan(text, tmp_path), variant)  # type: ignore[arg-type]
    assert str(refused.value) == says
    assert measured.asked == []


def test_floors_are_remembered_for_this_spec_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(HEAD, tmp_path)
    assert floors_of(made, tmp_path) == {}
    file = remember(SEEN, made, tmp_path)
    (entry,) = json.loads(file.read_text()).values()
    assert entry["spec.yaml"]["variant"] == "int8"
    assert floors_of(made, tmp_path) == {"throughput": 0.02}  # what is infinite is not kept
    assert floors_of(replace(made, id="other.yaml"), tmp_path) == {}
    monkeypatch.setattr(platform, "node", lambda: "quieter")
    assert floors_of(made, tmp_path) == {}


def test_other_specs_and_machines_are_kept(tmp_path: Path) -> None:
    made = plan(HEAD, tmp_path)
    other = replace(made, id="other.yaml")
    remember(SEEN, made, tmp_path)
    remember(replace(SEEN, floors=(replace(FLOORS[0], smallest=0.01),)), other, tmp_path)
    assert floors_of(made, tmp_path) == {"throughput": 0.02}
    assert floors_of(other, tmp_path) == {"throughput": 0.01}


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    made = plan(HEAD, tmp_path)
    (tmp_path / FILE).write_text("{")
    with pytest.raises(DeploycheckError, match="delete it, and measure again") as raised:
        floors_of(made, tmp_path)
    assert raised.value.where == str(tmp_path / FILE)
