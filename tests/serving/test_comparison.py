"""Two artifacts, served at once and measured in turn, by real servers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deploycheck.language.spec import Load
from deploycheck.serving import load_report, machine_state, scenarios
from deploycheck.serving.comparison import compare
from deploycheck.serving.goals import Goal
from deploycheck.serving.load_report import LoadReport
from deploycheck.serving.scenarios import Server
from deploycheck.store import Artifact, open_artifact
from deploycheck.verdict import fewest_rounds
from tests.serving.benches import make_bench
from tests.serving.checks_on_loads import AS_FAST, MEDIAN_OF_TWO, NONE_FAILS


@pytest.fixture(scope="module")
def model(artifact: Path) -> Artifact:
    return open_artifact(artifact)


@pytest.fixture(autouse=True)
def short_turns_on_a_quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests are at work on it."""
    monkeypatch.setattr(machine_state, "disturbance", lambda *_: "")
    monkeypatch.setattr(scenarios, "TURN_S", 0.1)


def compared(model: Artifact, folder: Path, load: Mapping[str, Any], *goals: Goal) -> tuple[LoadReport, LoadReport]:
    compare(("A", model), ("B", model), make_bench(folder, load, *goals), folder)
    reports = load_report.read(folder)
    return reports["A"], reports["B"]


def test_two_are_measured_in_turn_until_their_ratios_are_decided(model: Artifact, tmp_path: Path) -> None:
    a, b = compared(model, tmp_path, {"rate": "1000 /s"}, AS_FAST, MEDIAN_OF_TWO)
    rounds = len(a.rounds)
    assert fewest_rounds(0.95) <= rounds < scenarios.MOST_ROUNDS
    assert len(a.requests_per_s) == len(b.requests_per_s) == rounds
    assert sum(a.rounds) == len(a.latencies_s) == rounds * 2 * Server().requests_per_turn(Load(rate="1000 /s"))
    assert AS_FAST.is_decided(a, b)
    assert MEDIAN_OF_TWO.is_decided(a, b)
    assert a.saturation == f"in turn A B B A, {rounds} rounds"
    assert all(side.cold_start_s > 0 and side.peak_memory_bytes > 1e6 and not side.recompilations for side in (a, b))


def test_two_of_which_only_the_throughput_is_compared_are_sent_nothing_else(
    model: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenarios, "MOST_ROUNDS", 1)
    a, b = compared(model, tmp_path, {"rate": "1000 /s"}, AS_FAST)
    assert a.requests_per_s
    assert a.latencies_s == b.latencies_s == ()


def test_where_every_round_is_disturbed_nothing_counts(
    model: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_state, "disturbance", lambda *_: "other processes took 80% of the machine")
    monkeypatch.setattr(scenarios, "MOST_ROUNDS", 1)
    a, b = compared(model, tmp_path, {"rate": "1000 /s"}, AS_FAST)
    assert a.disturbed == ("other processes took 80% of the machine",) * 2
    assert a.requests_per_s == b.requests_per_s == ()
    assert not AS_FAST.is_decided(a, b)


def test_two_whose_failures_are_counted_are_sent_one_round_however_disturbed(
    model: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_state, "disturbance", lambda *_: "other processes took 80% of the machine")
    a, _ = compared(model, tmp_path, {"rate": "1000 /s"}, NONE_FAILS)
    assert len(a.rounds) == 1
    assert a.disturbed == ()
    assert a.latencies_s
    assert a.failed == 0
