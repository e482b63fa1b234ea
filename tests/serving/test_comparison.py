"""Two artifacts, served at once and measured in turn: by real servers, and by made-up ones in virtual time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from deploycheck.language.spec import Load
from deploycheck.serving import load_report, machine_state, scenarios
from deploycheck.serving.bench import Bench
from deploycheck.serving.comparison import MOST_DISTURBED, Side, compare, take_rounds
from deploycheck.serving.goals import Goal
from deploycheck.serving.load import LoadGenerator, undisturbed
from deploycheck.serving.load_report import Disturbance, LoadReport
from deploycheck.serving.protocol import Encoded
from deploycheck.serving.scenarios import Server
from deploycheck.serving.throughput import BLOCK_S
from deploycheck.store import Artifact, open_artifact
from deploycheck.verdict import fewest_rounds
from tests.serving.benches import make_bench
from tests.serving.checks_on_loads import AS_FAST, FASTER, MEDIAN_OF_TWO, NONE_FAILS
from tests.serving.virtual_time import VirtualClock, run_in_virtual_time


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


def test_two_servers_are_measured_in_turn(model: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenarios, "MOST_ROUNDS", 2)
    a, b = compared(model, tmp_path, {"rate": "1000 /s"}, AS_FAST, MEDIAN_OF_TWO)
    assert len(a.requests_per_s) == len(b.requests_per_s) == len(a.rounds) == 2
    assert sum(a.rounds) == len(a.latencies_s) == 2 * 2 * Server().requests_per_turn(Load(rate="1000 /s"))
    rounds = "in turn A B B A, 2 rounds"
    assert a.saturation == f"{rounds}, over {a.busy_s:.1f} s"
    assert a.schedule == f"{len(a.latencies_s)} requests {rounds}, over {a.lasted_s:.1f} s"
    for side in (a, b):
        assert side.failed == side.recompilations == 0
        assert side.cold_start_s > 0
        assert side.peak_memory_bytes > 1e6
        assert side.largest_difference is None


def test_two_whose_failures_are_counted_are_sent_one_round_however_disturbed(
    model: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_state, "disturbance", lambda *_: "other processes took 80% of the machine")
    a, _ = compared(model, tmp_path, {"rate": "1000 /s"}, NONE_FAILS)
    assert len(a.rounds) == 1
    assert a.disturbed == ()
    assert a.latencies_s
    assert a.failed == 0


class TwoServers:
    """Two servers in virtual time, each with its latency; ``asked`` has the side of each turn in order."""

    def __init__(self, latencies: Mapping[str, float]) -> None:
        self.latencies = latencies
        self.asked: list[str] = []

    def side(self, name: str, clock: VirtualClock, watches: Iterator[Callable[[], str]]) -> Side:
        async def ask(_: Encoded) -> str:
            if self.asked[-1:] != [name]:
                self.asked.append(name)
            await asyncio.sleep(self.latencies[name])
            return ""

        generator = LoadGenerator(ask, lambda: next(watches, undisturbed), clock)
        return Side(variant=name, server=None, client=None, generator=generator)  # type: ignore[arg-type]

    def compare(self, bench: Bench, *disturbances: str) -> tuple[Side, Side, list[Disturbance]]:
        async def run(clock: VirtualClock) -> tuple[Side, Side, list[Disturbance]]:
            of_rounds = itertools.chain(disturbances, itertools.repeat("")).__next__
            watches = iter([of_rounds])  # the first watch is that of whole rounds, those of the turns see nothing
            a, b = (self.side(name, clock, watches) for name in ("A", "B"))
            return a, b, await take_rounds(a, b, bench)

        return run_in_virtual_time(run)


def test_two_of_which_only_the_throughput_is_compared_are_sent_nothing_else(tmp_path: Path) -> None:
    a, b, _ = TwoServers({"A": 0.01, "B": 0.01}).compare(make_bench(tmp_path, {}, AS_FAST))
    assert a.rates
    assert a.latencies == b.latencies == []


def test_two_are_measured_until_every_ratio_is_decided(tmp_path: Path) -> None:
    a, b, _ = TwoServers({"A": 0.01, "B": 0.01}).compare(make_bench(tmp_path, {}, AS_FAST, MEDIAN_OF_TWO))
    assert fewest_rounds(0.95) <= len(a.rounds) < scenarios.MOST_ROUNDS
    assert AS_FAST.is_decided(a.report(), b.report())
    assert MEDIAN_OF_TWO.is_decided(a.report(), b.report())


def test_where_every_round_is_disturbed_nothing_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenarios, "MOST_ROUNDS", 2)
    two = TwoServers({"A": 0.01, "B": 0.01})
    a, b, disturbed = two.compare(make_bench(tmp_path, {}, AS_FAST), *["another program"] * 100)
    assert [one.what for one in disturbed] == ["another program"] * 4
    assert a.rates == b.rates == []
    assert not AS_FAST.is_decided(a.report(), b.report())


def test_a_machine_too_busy_to_compare_two_on_it_ends_the_comparison(tmp_path: Path) -> None:
    two = TwoServers({"A": 0.01, "B": 0.01})
    a, _, disturbed = two.compare(make_bench(tmp_path, {}, AS_FAST), *["another program"] * 1000)
    assert len(disturbed) == MOST_DISTURBED
    assert a.rates == []


def test_a_round_is_a_b_b_a_and_lasts_until_the_ratio_is_decided(tmp_path: Path) -> None:
    two = TwoServers({"A": 0.01, "B": 0.02})
    a, b, disturbed = two.compare(make_bench(tmp_path, {}, FASTER))
    assert two.asked[:4] == ["A", "B", "A", "B"], "the turns of B follow one another"
    assert disturbed == []
    assert [one / other for one, other in zip(a.rates, b.rates, strict=True)] == pytest.approx([2.0] * len(a.rates))
    assert FASTER.is_decided(a.report(), b.report())
    assert len(a.rates) < scenarios.MOST_ROUNDS


def test_a_disturbed_round_is_repeated_and_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenarios, "MOST_ROUNDS", 2)
    two = TwoServers({"A": 0.01, "B": 0.02})
    a, b, disturbed = two.compare(make_bench(tmp_path, {}, FASTER), "", "another program")
    assert [one.what for one in disturbed] == ["another program"]
    assert len(a.rates) == len(b.rates) == 2
    assert two.asked.count("B") == 3


def test_two_without_checks_are_compared_in_all_there_is_for_all_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenarios, "MOST_ROUNDS", 3)
    a, b, _ = TwoServers({"A": 0.01, "B": 0.01}).compare(make_bench(tmp_path, {"rate": "400 /s"}))
    assert len(a.rates) == 3
    assert a.rounds == b.rounds == [80] * 3
    assert a.lasted_s == pytest.approx(6 * 0.1, abs=0.2), "its own turns, without those of the other"
    assert a.busy_s == pytest.approx(6 * BLOCK_S, abs=0.1)
    assert a.sent > sum(a.rounds)


def test_a_server_that_answers_nothing_more_ends_the_comparison(tmp_path: Path) -> None:
    a, _, _ = TwoServers({"A": 0.01, "B": 100.0}).compare(make_bench(tmp_path, {}, FASTER))
    assert len(a.rates) == 1
