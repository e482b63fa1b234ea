"""Loads as the steps take them: real servers, in MLPerf's four scenarios, alone and in turn."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram

from deploycheck.checks.latency import error_rate, latency, speedup, throughput
from deploycheck.language import Dimension, Threshold
from deploycheck.language.spec import Load, Serve
from deploycheck.plan import Check
from deploycheck.runner import measure
from deploycheck.runner.goals import Goal
from deploycheck.runner.measure import SAMPLES_A_QUERY, Bench, compare, histogram
from deploycheck.runner.steps import measure_load
from deploycheck.serving import quiet, report
from deploycheck.serving.process import ServerProcess
from deploycheck.serving.report import LoadReport
from deploycheck.store import Artifact, open_artifact
from deploycheck.verdict import Outcome, decide, fewest_rounds
from tests.serving.models import expected, write_artifact

IMAGES = np.random.default_rng(0).normal(size=(64, 4, 4, 1)).astype(np.float32)
MEDIAN = functools.partial(latency.measure, percentile=0.5)
FAST = Goal(lambda load: MEDIAN(load=load), Threshold("<=", 5.0, "s", Dimension.TIME), 0.95)
ANSWERED = Goal(lambda load: error_rate.measure(load=load), Threshold("<=", 0.5, "%", Dimension.PROPORTION), 0.95)
BUSY = Goal(lambda load: throughput.measure(load=load), Threshold(">=", 1.0, "/s", Dimension.RATE), 0.95)
P50_OF_TWO = Goal(
    functools.partial(measure_load, latency, Check("", "", "serve", "A", "latency.p50", (), percentile=0.5)),
    Threshold("<=", 1000.0, "x", Dimension.MULTIPLE), 0.95,
)  # fmt: skip
AS_FAST = Goal(
    functools.partial(measure_load, speedup, Check("", "", "serve", "A", "speedup", ())),
    Threshold(">=", 0.01, "x", Dimension.MULTIPLE), 0.95,
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return open_artifact(write_artifact(tmp_path_factory.mktemp("artifact")))


@pytest.fixture(autouse=True)
def a_quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests are at work on it."""
    monkeypatch.setattr(quiet, "disturbance", lambda *_: "")


def bench(scratch: Path, scenario: Mapping[str, Any], *goals: Goal) -> Bench:
    section = Serve.model_validate(
        {"variants": ["A"], "batching": {"max_size": 4, "max_delay": "1 ms"}, "load": {**scenario}}
    )
    return Bench(section, {"image": IMAGES}, goals, ServerProcess, scratch, lambda _: None)


def measured(model: Artifact, folder: Path, scenario: Mapping[str, Any], *goals: Goal) -> LoadReport:
    measure.measure("A", model, expected(IMAGES), bench(folder, scenario, *goals), folder)
    return report.read(folder)["A"]


def test_a_server_is_asked_on_a_schedule_until_every_check_is_decided(model: Artifact, tmp_path: Path) -> None:
    load = measured(model, tmp_path, {"rate": "400 /s", "requests": 3000}, FAST, ANSWERED, BUSY)
    assert 60 <= len(load.latencies_s) < 3000
    assert f"{len(load.latencies_s)} requests, poisson arrivals at 400 /s, after " in load.schedule
    assert 25 <= len(load.requests_per_s) < 100
    assert all(goal.is_settled(load) for goal in (FAST, ANSWERED, BUSY))
    assert load.failed == load.recompilations == 0
    assert load.largest_difference < 1e-4
    assert load.cold_start_s > 0
    assert load.peak_memory_bytes > 1e6


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ("single_stream", "requests, one after the other, after"),
        ("multi_stream", f"queries of {SAMPLES_A_QUERY} requests, one query after the other, after"),
    ],
)
def test_a_stream_is_asked_as_soon_as_it_has_answered(
    model: Artifact, tmp_path: Path, scenario: str, said: str
) -> None:
    load = measured(model, tmp_path, {"scenario": scenario, "requests": 40})
    assert len(load.latencies_s) == 40
    assert f"40 {said}" in load.schedule
    assert "8 requests kept in flight" in load.saturation


def test_offline_all_samples_are_there_at_once_and_the_rate_is_of_samples(model: Artifact, tmp_path: Path) -> None:
    load = measured(model, tmp_path, {"scenario": "offline"}, BUSY)
    assert load.latencies_s == ()
    assert "all samples at once" in load.schedule
    assert "batches of all samples kept in flight" in load.saturation
    assert np.mean(load.requests_per_s) > 100


def test_two_are_measured_in_turn_until_their_ratio_is_decided(
    model: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "TURN_S", 0.1)
    compare(("A", model), ("B", model), bench(tmp_path, {"rate": "1000 /s"}, AS_FAST, P50_OF_TWO), tmp_path)
    loads = report.read(tmp_path)
    a, b = loads["A"], loads["B"]
    rounds = len(a.rounds)
    assert fewest_rounds(0.95) <= rounds < measure.MOST_ROUNDS
    assert len(a.requests_per_s) == len(b.requests_per_s) == rounds
    assert sum(a.rounds) == len(a.latencies_s) == rounds * 2 * measure.requests_a_turn(Load(rate="1000 /s"))
    ratio = decide(measure_load(speedup, Check("", "", "serve", "A", "speedup", ()), a, b), AS_FAST.threshold, 0.95)
    assert ratio.outcome is Outcome.PASS
    assert ratio.low < 1 < ratio.high
    assert P50_OF_TWO.is_settled(a, b)
    assert all(side.cold_start_s > 0 and side.peak_memory_bytes > 1e6 and not side.recompilations for side in (a, b))


def test_two_of_which_only_the_throughput_is_compared_are_sent_nothing_else(
    model: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "MOST_ROUNDS", 1)
    compare(("A", model), ("B", model), bench(tmp_path, {"rate": "1000 /s"}, AS_FAST), tmp_path)
    loads = report.read(tmp_path)
    assert loads["A"].requests_per_s
    assert loads["A"].latencies_s == loads["B"].latencies_s == ()


def test_where_every_round_is_disturbed_nothing_is_concluded(
    model: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "disturbance", lambda *_: "other processes took 80% of the machine")
    monkeypatch.setattr(measure, "MOST_ROUNDS", 1)
    compare(("A", model), ("B", model), bench(tmp_path, {"rate": "1000 /s"}, AS_FAST), tmp_path)
    loads = report.read(tmp_path)
    assert loads["A"].disturbed == ("other processes took 80% of the machine",) * 2
    measurement = measure_load(speedup, Check("", "", "serve", "A", "speedup", ()), loads["A"], loads["B"])
    verdict = decide(measurement, AS_FAST.threshold, 0.95)
    assert verdict.outcome is Outcome.UNDECIDED
    assert "the machine was disturbed 2 times" in verdict.reason


def test_histograms_merge_and_hold_what_never_came_back_as_the_slowest() -> None:
    one, other = ((0.001,) * 99 + (0.5,), (0.002,) * 99 + (math.inf,))
    merged = HdrHistogram.decode(histogram(one))
    merged.add(HdrHistogram.decode(histogram(other)))
    assert merged.get_total_count() == 200
    assert merged.get_value_at_percentile(40) == pytest.approx(1000, rel=0.01)
    assert merged.get_value_at_percentile(60) == pytest.approx(2000, rel=0.01)
    assert merged.get_value_at_percentile(99.4) == pytest.approx(500_000, rel=0.01)
    assert merged.get_max_value() == pytest.approx(measure.HIGHEST_S * 1e6, rel=0.01)
