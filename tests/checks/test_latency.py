from __future__ import annotations

import math
from dataclasses import replace

import pytest

from deploycheck.checks.latency import (
    cold_start,
    error_rate,
    errors,
    latency,
    memory,
    parity,
    recompilations,
    speedup,
    throughput,
)
from deploycheck.checks.metric import MetricFunction
from deploycheck.language.threshold import parse_threshold
from deploycheck.serving.load_report import Disturbance, LoadReport
from deploycheck.verdict import (
    Blocks,
    Events,
    Exact,
    Measurement,
    Outcome,
    Quantile,
    Ratios,
    decide,
    ratio_of,
    value_of,
)

BUSY = (Disturbance(0.2, 12.0, "other processes took 40% of the machine"),)
LOAD = LoadReport(
    latencies_s=tuple(number / 1000 for number in range(100, 0, -1)),  # 100 ms down to 1 ms
    schedule="100 requests, poisson, 200 /s",
    doubt="",
    requests_per_s=(400.0, 410.0, 390.0, 420.0),
    saturation="4 blocks of 0.3 s, 4 requests kept in flight",
    sent=1250,
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
    assert measured.sample == Quantile(percentile, LOAD.latencies_s)
    assert measured.note == f"3 requests failed: 2 x 503; 1 x timeout; {LOAD.schedule}"
    assert value_of(measured.sample) == seconds


def test_a_request_that_failed_took_forever() -> None:
    report = replace(LOAD, latencies_s=(0.001,) * 98 + (math.inf,) * 2)
    measured = [value_of(latency.measure(load=report, percentile=p).sample) for p in (0.98, 0.99)]
    assert measured == [0.001, math.inf]


@pytest.mark.parametrize(
    ("doubt", "outcome"), [("", Outcome.FAIL), ("the client was late", Outcome.UNDECIDED)], ids=["sure", "doubtful"]
)
def test_latencies_that_could_be_the_clients_fault_fail_nothing(doubt: str, outcome: Outcome) -> None:
    measured = latency.measure(load=replace(LOAD, latencies_s=(0.1,) * 60, doubt=doubt), percentile=0.5)
    threshold = parse_threshold("<= 1 ms", latency.word)
    assert decide(measured, threshold, 0.95).outcome is outcome
    assert decide(measured, parse_threshold("<= 1 s", latency.word), 0.95).outcome is Outcome.PASS


def test_throughput_is_the_mean_over_the_blocks() -> None:
    measured = throughput.measure(load=LOAD)
    assert measured.sample == Blocks((400.0, 410.0, 390.0, 420.0))
    assert measured.note == f"3 requests failed: 2 x 503; 1 x timeout; {LOAD.saturation}"
    assert value_of(measured.sample) == 405


@pytest.mark.parametrize(
    ("metric", "measurement"),
    [
        (errors, Measurement(Exact(3), note="of 1,250 requests; 3 requests failed: 2 x 503; 1 x timeout")),
        (parity, Measurement(Exact(2.5e-6))),
        (cold_start, Measurement(Exact(1.75))),
        (memory, Measurement(Exact(3.1e8))),
        (recompilations, Measurement(Exact(2))),
    ],
    ids=lambda value: value.word.name if isinstance(value, MetricFunction) else "",
)
def test_what_is_known_exactly_is_taken_from_the_report(metric: MetricFunction, measurement: Measurement) -> None:
    assert metric.measure(load=LOAD) == measurement


@pytest.mark.parametrize(
    ("limit", "outcome"),
    [("<= 1250", Outcome.ERROR), ("<= 5000", Outcome.ERROR), ("<= 1249", Outcome.PASS), ("<= 2", Outcome.FAIL)],
)
def test_a_limit_of_as_many_errors_as_requests_were_sent_is_an_error(limit: str, outcome: Outcome) -> None:
    verdict = decide(errors.measure(load=LOAD), parse_threshold(limit, errors.word), 0.95)
    assert verdict.outcome is outcome
    assert ("values from 0 to 1,250" in verdict.reason) is (outcome is Outcome.ERROR)


def test_served_outputs_that_are_no_numbers_never_pass_for_parity() -> None:
    measured = parity.measure(load=replace(LOAD, largest_difference=math.nan))
    assert decide(measured, parse_threshold("<= 1e-3", parity.word), 0.95).outcome is Outcome.ERROR


def test_the_error_rate_is_the_share_of_requests_that_never_came_back() -> None:
    report = replace(LOAD, latencies_s=(0.001, math.inf, 0.001, 0.001))
    assert error_rate.measure(load=report).sample == Events((False, True, False, False))


def test_a_speedup_is_the_ratio_of_two_throughputs_round_by_round() -> None:
    half = replace(LOAD, requests_per_s=tuple(rate / 2 for rate in LOAD.requests_per_s))
    sample = ratio_of(speedup.measure(load=LOAD).sample, speedup.measure(load=half).sample)
    assert sample == Ratios((2.0,) * 4)
    assert value_of(sample) == pytest.approx(2)


def test_what_disturbed_the_machine_is_counted_and_said_where_nothing_could_be_decided() -> None:
    report = replace(LOAD, disturbed=BUSY, disturbed_requests=(True,) * 98 + (False,) * 2)
    measured = latency.measure(load=report, percentile=0.99)
    verdict = decide(measured, parse_threshold("<= 1 ms", latency.word), 0.95)
    assert verdict.outcome is Outcome.UNDECIDED
    for text in (verdict.reason, measured.note):
        assert "disturbed during 98 of 100 requests (other processes took 40% of the machine)" in text
        assert "count towards a pass and not towards a failure" in text
    assert "disturbed" not in throughput.measure(load=replace(report, disturbed_blocks=(False,) * 4)).note


def test_a_busy_machine_passes_a_fast_model_and_does_not_fail_a_slow_one() -> None:
    busy = replace(LOAD, latencies_s=(0.003,) * 700, disturbed=BUSY, disturbed_requests=(True,) * 700)
    measured = latency.measure(load=busy, percentile=0.99)
    assert decide(measured, parse_threshold("<= 30 ms", latency.word), 0.95).outcome is Outcome.PASS
    verdict = decide(measured, parse_threshold("<= 2 ms", latency.word), 0.95)
    assert verdict.outcome is Outcome.UNDECIDED
    assert "a quieter machine would decide it" in verdict.reason
    failing = replace(busy, latencies_s=(math.inf,) * 700)
    threshold = parse_threshold("<= 1 %", error_rate.word)
    assert decide(error_rate.measure(load=failing), threshold, 0.95).outcome is Outcome.UNDECIDED
    assert decide(error_rate.measure(load=busy), threshold, 0.95).outcome is Outcome.PASS


def test_rounds_of_two_that_were_disturbed_are_said_to_have_been_measured_again() -> None:
    rounds = replace(LOAD, disturbed=BUSY * 3)
    assert "disturbed in 3 rounds, which were measured again" in throughput.measure(load=rounds).note


def test_a_cold_start_on_a_disturbed_machine_can_pass_and_not_fail() -> None:
    measured = cold_start.measure(load=replace(LOAD, disturbed_start="other processes took 40% of the machine"))
    assert decide(measured, parse_threshold("<= 5 s", cold_start.word), 0.95).outcome is Outcome.PASS
    verdict = decide(measured, parse_threshold("<= 1 s", cold_start.word), 0.95)
    assert verdict.outcome is Outcome.UNDECIDED
    assert "while the server started: other processes took 40%" in verdict.reason


def test_requests_that_failed_are_reported_wherever_a_latency_is_not_passed() -> None:
    threshold = parse_threshold("<= 20 ms", latency.word)
    for latencies, outcome in (((math.inf,) * 500, Outcome.FAIL), ((0.001,) * 100, Outcome.UNDECIDED)):
        verdict = decide(latency.measure(load=replace(LOAD, latencies_s=latencies), percentile=0.99), threshold, 0.95)
        assert verdict.outcome is outcome
        assert "3 requests failed: 2 x 503; 1 x timeout" in verdict.reason


def test_parity_is_not_said_to_be_equal_where_it_was_not_measured() -> None:
    two = [parity.measure(load=replace(LOAD, largest_difference=None))] * 2
    measured = replace(two[0], sample=ratio_of(two[0].sample, two[1].sample))
    verdict = decide(measured, parse_threshold("<= 1 x baseline", parity.word), 0.95)
    assert verdict.outcome is Outcome.UNDECIDED
    assert "isn't measured where two models are compared" in verdict.reason


@pytest.mark.parametrize(
    ("own", "other", "outcome"),
    [
        ((0.0,) * 30, (100.0,) * 30, Outcome.FAIL),
        ((100.0,) * 30, (0.0,) * 30, Outcome.UNDECIDED),
        ((0.0,) * 30, (0.0,) * 30, Outcome.UNDECIDED),
        ((100.0, 101.0) * 10, (100.0,) * 19 + (0.0,), Outcome.UNDECIDED),
    ],
)
def test_a_server_that_answered_nothing_has_no_ratio(
    own: tuple[float, ...], other: tuple[float, ...], outcome: Outcome
) -> None:
    sides = [speedup.measure(load=LoadReport(requests_per_s=rates)) for rates in (own, other)]
    measured = replace(sides[0], sample=ratio_of(sides[0].sample, sides[1].sample))
    verdict = decide(measured, parse_threshold(">= 1.2 x baseline", speedup.word), 0.95)
    assert verdict.outcome is outcome


def test_no_failures_on_either_side_are_no_ratio_and_no_error() -> None:
    threshold = parse_threshold("<= 1 x baseline", error_rate.word)
    clean, broken = (
        error_rate.measure(load=LoadReport(latencies_s=(value,) * 600)).sample for value in (0.001, math.inf)
    )
    for own, other, outcome in (
        (clean, clean, Outcome.UNDECIDED),
        (broken, clean, Outcome.FAIL),
        (clean, broken, Outcome.PASS),
    ):
        verdict = decide(Measurement(ratio_of(own, other)), threshold, 0.95)
        assert verdict.outcome is outcome
    assert (
        "the ratio is undefined: it is relative to 0"
        in decide(Measurement(ratio_of(clean, clean)), threshold, 0.95).reason
    )
