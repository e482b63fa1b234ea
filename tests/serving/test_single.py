"""One artifact, served and measured: what is sent in virtual time, and real servers in MLPerf's scenarios."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploycheck.language.spec import Serve
from deploycheck.serving import load_report, machine_state
from deploycheck.serving.bench import Bench
from deploycheck.serving.load import LoadGenerator, undisturbed
from deploycheck.serving.load_report import LoadReport
from deploycheck.serving.protocol import Encoded
from deploycheck.serving.responses import Responses
from deploycheck.serving.single import FEW_REQUESTS, MOST_BLOCKS, keep_busy, largest_difference, measure, send_requests
from deploycheck.serving.throughput import Throughput
from deploycheck.store import Artifact, open_artifact
from tests.serving.benches import IMAGES, make_bench
from tests.serving.checks_on_loads import ANSWERS_SOME, FAST, FEW_FAIL, NONE_FAILS, p99
from tests.serving.models import expected
from tests.serving.virtual_time import VirtualClock, generate


@pytest.fixture(autouse=True)
def a_quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests are at work on it."""
    monkeypatch.setattr(machine_state, "disturbance", lambda *_: "")


async def answer(_: VirtualClock, __: Encoded) -> str:
    await asyncio.sleep(0.01)
    return ""


def sent(bench: Bench, *disturbances: str) -> tuple[Responses, float]:
    """Return what is sent on the scenario's schedule, and how many seconds that takes."""

    async def use(generator: LoadGenerator) -> tuple[Responses, float]:
        return await send_requests(generator, "A", bench), generator.clock()

    disturbance = itertools.chain(disturbances, itertools.repeat("")).__next__
    return generate(answer, use, watch=lambda: disturbance if bench.is_timed else undisturbed)


def busy(bench: Bench) -> Throughput:
    return generate(answer, lambda generator: keep_busy(generator, "A", bench))


def test_a_timed_check_ends_the_load_as_soon_as_it_is_decided(tmp_path: Path) -> None:
    responses, _ = sent(make_bench(tmp_path, {"min_duration": "0 s"}, p99(1.0), NONE_FAILS))
    assert 299 <= len(responses.latencies_s) < 1000
    assert p99(1.0).is_decided(LoadReport(latencies_s=responses.latencies_s))


def test_a_load_whose_checks_only_count_sends_few_requests(tmp_path: Path) -> None:
    responses, seconds = sent(make_bench(tmp_path, {"requests": 5000, "rate": "100 /s"}, NONE_FAILS))
    assert len(responses.latencies_s) == FEW_REQUESTS
    assert seconds < 5
    responses, _ = sent(make_bench(tmp_path, {"requests": 40}, NONE_FAILS))
    assert len(responses.latencies_s) == 40


def test_a_load_whose_checks_only_count_is_not_sent_again_when_the_machine_was_disturbed(tmp_path: Path) -> None:
    disturbances = ["another program"] * 100
    responses, _ = sent(make_bench(tmp_path, {"requests": 40}, NONE_FAILS, FEW_FAIL), *disturbances)
    assert len(responses.latencies_s) == 40
    assert responses.disturbed == ()
    timed, _ = sent(make_bench(tmp_path, {"requests": 40}, p99(0.02)), *disturbances)
    assert timed.disturbed


def test_a_load_lasts_as_long_as_the_spec_asks_for(tmp_path: Path) -> None:
    for goal in (NONE_FAILS, p99(1.0)):
        _, seconds = sent(make_bench(tmp_path, {"requests": 40, "min_duration": "20 s"}, goal))
        assert seconds >= 20


@pytest.mark.parametrize(
    ("load", "least", "most"),
    [
        ({}, 10.0, 10.2),
        ({"rate": "1000 /s"}, 10.0, 10.2),
        ({"requests": 400}, 3.5, 4.6),
        ({"requests": 5000}, 10.0, 10.2),
        ({"min_duration": "2 s"}, 2.0, 9.0),
        ({"scenario": "single_stream"}, 10.0, 10.2),
        ({"scenario": "single_stream", "requests": 400}, 4.0, 4.1),
    ],
    ids=str,
)
def test_a_timed_load_lasts_ten_seconds_or_what_the_spec_says(
    load: Mapping[str, Any], least: float, most: float, tmp_path: Path
) -> None:
    responses, _ = sent(make_bench(tmp_path, load, p99(1.0)))
    assert least - 0.02 <= responses.lasted_s <= most


def test_a_service_that_is_slow_one_second_in_twenty_passes_no_more_than_half_of_its_loads(tmp_path: Path) -> None:
    """A load of as few requests as a p99 takes meets the slow second in a quarter of them."""

    async def stalls(clock: VirtualClock, _: Encoded) -> str:
        await asyncio.sleep(1.0 if (clock() + offset) % 20 < 1 else 0.001)
        return ""

    passed = 0
    bench = make_bench(tmp_path, {"arrivals": "constant"}, p99(0.03))
    for offset in range(0, 20, 2):  # noqa: B007 - the server's answers depend on it
        seen = generate(stalls, lambda generator: send_requests(generator, "A", bench))
        report = LoadReport(latencies_s=seen.latencies_s, disturbed_requests=seen.marks)
        passed += p99(0.03).is_decided(report) and float(np.quantile(report.latencies_s, 0.99)) < 0.03
    assert 0 < passed <= 5


def test_a_busy_server_is_watched_for_as_long(tmp_path: Path) -> None:
    assert busy(make_bench(tmp_path, {}, ANSWERS_SOME)).lasted_s == pytest.approx(10.0, abs=0.2)
    assert busy(make_bench(tmp_path, {"min_duration": "0 s"}, ANSWERS_SOME)).lasted_s < 5


def test_what_is_sent_is_said_before(tmp_path: Path) -> None:
    said: list[str] = []
    sent(make_bench(tmp_path, {"requests": 60}, FAST, progress=said.append))
    assert said == ["serve: A, 60 requests, poisson arrivals at 100 /s at most"]


def test_a_server_is_kept_busy_until_the_checks_on_its_throughput_are_decided(tmp_path: Path) -> None:
    assert 2 < len(busy(make_bench(tmp_path, {"min_duration": "0 s"}, ANSWERS_SOME)).rates) < MOST_BLOCKS
    assert len(busy(make_bench(tmp_path, {}, FAST)).rates) == 1


def test_the_largest_difference_is_over_all_outputs() -> None:
    served = {"logits": np.array([[1.0, 2.0]], np.float32), "best": np.array([1], np.int32)}
    assert largest_difference(served, {"logits": np.array([[1.0, 2.5]]), "best": np.array([1])}) == 0.5
    assert largest_difference(served, {"logits": np.array([[1.0, 2.5]]), "best": np.array([3])}) == 2.0


@pytest.fixture(scope="module")
def model(artifact: Path) -> Artifact:
    return open_artifact(artifact)


def measured(model: Artifact, folder: Path, load: Mapping[str, Any], *goals: Any) -> LoadReport:
    measure("A", model, {"logits": expected(IMAGES)}, make_bench(folder, load, *goals), folder)
    return load_report.read(folder)["A"]


def test_a_server_is_asked_on_a_schedule_until_every_check_is_decided(model: Artifact, tmp_path: Path) -> None:
    goals = (FAST, FEW_FAIL, ANSWERS_SOME)
    load = measured(model, tmp_path, {"rate": "100 /s", "min_duration": "1 s"}, *goals)
    assert 59 <= len(load.latencies_s) < Serve().load.most_requests
    over = f"over {load.lasted_s:.1f} s, after "
    assert f"{len(load.latencies_s)} requests, poisson arrivals at 100 /s, {over}" in load.schedule
    assert f"over {load.busy_s:.1f} s" in load.saturation
    assert load.lasted_s >= 0.95
    assert 2 < len(load.requests_per_s) < MOST_BLOCKS
    assert all(goal.is_decided(load) for goal in goals)
    assert load.failed == load.recompilations == 0
    assert load.sent > len(load.latencies_s), "those that kept it busy are counted too"
    assert load.largest_difference is not None
    assert load.largest_difference < 1e-4
    assert load.cold_start_s > 0
    assert load.peak_memory_bytes > 1e6


def test_a_load_that_is_not_timed_says_nothing_of_a_warm_up(model: Artifact, tmp_path: Path) -> None:
    load = measured(model, tmp_path, {"rate": "400 /s", "requests": 50}, NONE_FAILS)
    assert load.schedule == f"50 requests, poisson arrivals at 400 /s, over {load.lasted_s:.1f} s"
    assert load.failed == 0


def test_offline_all_samples_are_there_at_once_and_the_rate_is_of_samples(model: Artifact, tmp_path: Path) -> None:
    load = measured(model, tmp_path, {"scenario": "offline", "min_duration": "1 s"}, ANSWERS_SOME)
    assert load.latencies_s == ()
    assert "all samples at once" in load.schedule
    assert "batches of all samples kept in flight" in load.saturation
    assert load.requests_per_s
