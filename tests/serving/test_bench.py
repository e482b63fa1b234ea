from __future__ import annotations

import asyncio
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram

from deploycheck.serving import bench as module
from deploycheck.serving.bench import HIGHEST_S, describe_failures, histogram
from deploycheck.serving.client import Client, session
from deploycheck.serving.load import WarmUp
from deploycheck.serving.process import batching_options
from deploycheck.serving.protocol import decode_request
from tests.serving.benches import IMAGES, make_bench
from tests.serving.checks_on_loads import ANSWERS_SOME, FAST, FEW_FAIL, NONE_FAILS
from tests.serving.models import SIGNATURE


def test_histograms_can_be_merged_and_what_never_came_back_is_the_slowest() -> None:
    one, other = ((0.001,) * 99 + (0.5,), (0.002,) * 99 + (math.inf,))
    merged = HdrHistogram.decode(histogram(one))
    merged.add(HdrHistogram.decode(histogram(other)))
    assert merged.get_total_count() == 200
    assert merged.get_value_at_percentile(40) == pytest.approx(1000, rel=0.01)
    assert merged.get_value_at_percentile(60) == pytest.approx(2000, rel=0.01)
    assert merged.get_value_at_percentile(99.4) == pytest.approx(500_000, rel=0.01)
    assert merged.get_max_value() == pytest.approx(HIGHEST_S * 1e6, rel=0.01)


def test_the_most_frequent_reasons_of_failures_are_named_and_the_others_counted() -> None:
    assert describe_failures(Counter()) == ""
    assert describe_failures(Counter({"503": 2})) == "2 x 503"
    failed = Counter({"a": 5, "b": 4, "c": 3, "d": 2, "e": 1})
    assert describe_failures(failed) == "5 x a; 4 x b; 3 x c; 3 for other reasons"


def test_a_request_has_one_example_and_offline_a_whole_batch(tmp_path: Path) -> None:
    def rows(scenario: str) -> list[int]:
        sent = make_bench(tmp_path, {"scenario": scenario}).busy_requests()
        return [decode_request(each.headers, each.body, SIGNATURE, 4).batch for each in sent]

    assert rows("server") == [1] * len(IMAGES)
    assert rows("offline") == [4] * (len(IMAGES) // 4)


def test_no_more_requests_are_encoded_than_are_different_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DISTINCT_REQUESTS", 10)
    first, *_, last = make_bench(tmp_path, {}).requests()
    decoded = decode_request(last.headers, last.body, SIGNATURE, 4).inputs["image"]
    np.testing.assert_array_equal(decoded, IMAGES[9:10])
    assert first != last


def test_the_server_gets_the_batching_of_the_spec(tmp_path: Path) -> None:
    batching = make_bench(tmp_path, {}).serve.batching
    assert batching_options(batching) == ("--max-batch=4", "--max-delay-ms=1")


@pytest.mark.parametrize(
    ("goals", "is_timed"),
    [
        ((FAST,), True),
        ((NONE_FAILS, ANSWERS_SOME), True),
        ((NONE_FAILS,), False),
        ((NONE_FAILS, FEW_FAIL), False),
        ((), True),
    ],
    ids=["latency", "throughput", "errors", "error-rate", "none"],
)
def test_a_load_is_timed_if_a_check_on_it_is(goals: tuple, is_timed: bool, tmp_path: Path) -> None:  # type: ignore[type-arg]
    assert make_bench(tmp_path, {}, *goals).is_timed is is_timed


def test_a_load_that_is_not_timed_is_neither_warmed_up_nor_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MachineWatch", lambda _: lambda: "another program")
    said: list[str] = []

    async def use(bench: module.Bench) -> tuple[WarmUp, str]:
        async with session() as http:
            client = Client("http://127.0.0.1:9", "digits", http)
            generator = bench.generator(client, [])
            return await bench.warm_up("A", client, generator), generator.watch()()

    untimed = make_bench(tmp_path, {}, NONE_FAILS, progress=said.append)
    assert asyncio.run(use(untimed)) == (WarmUp(0, steady=True), "")
    assert said == []
    timed = make_bench(tmp_path, {}, FAST, progress=said.append)
    assert asyncio.run(use(timed))[1] == "another program"
    assert said == ["serve: A, warming up for 10 s at most"]
