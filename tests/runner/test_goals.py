"""A load has shown enough once every check that looks at it is decided, and not before."""

from __future__ import annotations

import functools

from deploycheck.checks.latency import error_rate, latency, speedup, throughput
from deploycheck.language import Dimension, Threshold
from deploycheck.plan import Check
from deploycheck.runner.goals import ARRIVALS, BUSY, ROUNDS, Goal, all_settled, of_kind
from deploycheck.runner.steps import measure_load
from deploycheck.serving.report import LoadReport


def p99(limit: float, confidence: float | None = None) -> Goal:
    measure = functools.partial(latency.measure, percentile=0.99)
    return Goal(
        lambda load: measure(load=load), Threshold("<=", limit, "s", Dimension.TIME, confidence=confidence), 0.95
    )


ERRORS = Goal(lambda load: error_rate.measure(load=load), Threshold("<=", 0.05, "%", Dimension.PROPORTION), 0.95)
THROUGHPUT = Goal(lambda load: throughput.measure(load=load), Threshold(">=", 500, "/s", Dimension.RATE), 0.95)
FASTER = Goal(
    functools.partial(measure_load, speedup, Check("", "", "serve", "int8", "speedup", ())),
    Threshold(">=", 1.2, "x", Dimension.MULTIPLE), 0.95,
)  # fmt: skip


def fast(count: int) -> LoadReport:
    return LoadReport(latencies_s=(0.001,) * count)


def test_it_is_decided_by_as_many_requests_as_it_takes_and_no_fewer() -> None:
    assert not p99(0.02).is_settled(fast(376))
    assert p99(0.02).is_settled(fast(377))
    assert p99(0.0001).is_settled(fast(10))


def test_a_confidence_of_its_own_asks_for_more() -> None:
    assert not p99(0.02, confidence=0.99).is_settled(fast(400))


def test_all_of_several_must_be_decided() -> None:
    assert all_settled((p99(0.02), ERRORS), fast(377))
    assert not all_settled((p99(0.02), ERRORS), fast(200))
    assert ERRORS.is_settled(fast(200))


def test_a_load_that_no_check_looks_at_is_never_cut_short() -> None:
    assert not all_settled((), fast(10_000))


def test_each_part_of_a_load_has_its_own_checks() -> None:
    goals = (p99(0.02), ERRORS, THROUGHPUT)
    assert of_kind(goals, ARRIVALS, LoadReport()) == (goals[0], ERRORS)
    assert of_kind(goals, BUSY, LoadReport()) == (THROUGHPUT,)
    assert of_kind((FASTER,), ROUNDS, LoadReport(), LoadReport()) == (FASTER,)


def test_rounds_of_two_decide_a_ratio() -> None:
    slow = LoadReport(requests_per_s=(100.0, 101.0, 99.0, 100.0, 100.5, 99.5) * 3)
    quick = LoadReport(requests_per_s=tuple(2 * rate for rate in slow.requests_per_s))
    assert all_settled((FASTER,), quick, slow)
    assert not all_settled((FASTER,), quick, LoadReport(requests_per_s=slow.requests_per_s[:1]))
