from __future__ import annotations

import math
from dataclasses import replace

import pytest

from deploycheck.checks.latency import cold_start, errors, latency, memory, parity, recompilations, throughput
from deploycheck.checks.metric import MetricFunction
from deploycheck.language.threshold import parse_threshold
from deploycheck.serving.report import LoadReport
from deploycheck.verdict import Blocks, Exact, Measurement, Outcome, Quantile, decide, value_of

LOAD = LoadReport(
    latencies_s=tuple(number / 1000 for number in range(100, 0, -1)),  # 100 ms down to 1 ms
    schedule="100 requests, poisson, 200 /s",
    doubt="",
    requests_per_s=(400.0, 410.0, 390.0, 420.0),
    saturation="4 blocks of 0.3 s, 4 requests kept in flight",
    failed=3,
    failures="2 x 503; 1 x timeout",
    largest_difference=2.5e-6,
    cold_start_s=1.75,
    peak_memory_bytes=3.1e8,
    recompilations=2,
)


@pytest.mark.parametrize(
    ("percentile", "seconds"), [(0.5, 0.050), (0.9, 0.090), (0.99, 0.099), (0.999, 0.100), (0.001, 0.001)]
)
def test_a_percentile_is_the_smallest_latency_that_so_many_do_not_exceed(percentile: float, seconds: float) -> None:
    measured = latency.measure(load=LOAD, percentile=percentile)
    assert measured == Measurement(Quantile(percentile, LOAD.latencies_s), note=LOAD.schedule)
    assert value_of(measured.sample) == seconds


def test_a_request_that_failed_took_forever() -> None:
    report = replace(LOAD, latencies_s=(0.001,) * 98 + (math.inf,) * 2)
    measured = [value_of(latency.measure(load=report, percentile=p).sample) for p in (0.98, 0.99)]
    assert measured == [0.001, math.inf]


@pytest.mark.parametrize(
    ("doubt", "outcome"), [("", Outcome.FAIL), ("the client was late", Outcome.UNDECIDED)], ids=["sure", "doubtful"]
)
def test_latencies_that_could_be_the_clients_fault_fail_nothing(doubt: str, outcome: Outcome) -> None:
    measured = latency.measure(load=replace(LOAD, doubt=doubt), percentile=0.5)
    threshold = parse_threshold("<= 1 ms", latency.word)
    assert decide(measured, threshold, 0.95).outcome is outcome
    assert decide(measured, parse_threshold("<= 1 s", latency.word), 0.95).outcome is Outcome.PASS


def test_throughput_is_the_mean_over_the_blocks() -> None:
    measured = throughput.measure(load=LOAD)
    assert measured == Measurement(Blocks((400.0, 410.0, 390.0, 420.0)), note=LOAD.saturation)
    assert value_of(measured.sample) == 405


@pytest.mark.parametrize(
    ("metric", "measurement"),
    [
        (errors, Measurement(Exact(3), note="2 x 503; 1 x timeout")),
        (parity, Measurement(Exact(2.5e-6))),
        (cold_start, Measurement(Exact(1.75))),
        (memory, Measurement(Exact(3.1e8))),
        (recompilations, Measurement(Exact(2))),
    ],
    ids=lambda value: value.word.name if isinstance(value, MetricFunction) else "",
)
def test_what_is_known_exactly_is_taken_from_the_report(metric: MetricFunction, measurement: Measurement) -> None:
    assert metric.measure(load=LOAD) == measurement


def test_served_outputs_that_are_no_numbers_never_pass_for_parity() -> None:
    measured = parity.measure(load=replace(LOAD, largest_difference=math.nan))
    assert decide(measured, parse_threshold("<= 1e-3", parity.word), 0.95).outcome is Outcome.ERROR
