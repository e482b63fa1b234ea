"""A load has shown enough once every check that looks at it is decided, and not before."""

from __future__ import annotations

from deploycheck.serving.goals import REQUEST_SAMPLES, THROUGHPUT_SAMPLES, TIMED_SAMPLES, Goal, all_decided, goals_on
from deploycheck.serving.load_report import LoadReport
from deploycheck.verdict import Quantile
from tests.serving.checks_on_loads import ANSWERS_MANY, FASTER, FEW_FAIL, MEDIAN_OF_TWO, NONE_FAILS, p99


def fast(count: int) -> LoadReport:
    return LoadReport(latencies_s=(0.001,) * count)


def test_it_is_decided_by_as_many_requests_as_it_takes_and_no_fewer() -> None:
    assert not p99(0.02).is_decided(fast(599))
    assert p99(0.02).is_decided(fast(600))
    assert p99(0.0001).is_decided(fast(10))


def test_a_threshold_with_its_own_confidence_needs_more() -> None:
    assert not p99(0.02, confidence=0.99).is_decided(fast(900))


def test_all_of_several_must_be_decided() -> None:
    assert all_decided((p99(0.02), FEW_FAIL), fast(600))
    assert not all_decided((p99(0.02), FEW_FAIL), fast(200))
    assert FEW_FAIL.is_decided(fast(200))


def test_a_load_that_no_check_looks_at_is_never_cut_short() -> None:
    assert not all_decided((), fast(10_000))


def test_each_part_of_a_load_has_its_checks() -> None:
    goals = (p99(0.02), FEW_FAIL, ANSWERS_MANY, NONE_FAILS)
    assert goals_on(goals, REQUEST_SAMPLES) == goals[:2]
    assert goals_on(goals, THROUGHPUT_SAMPLES) == (ANSWERS_MANY,)
    assert goals_on(goals, TIMED_SAMPLES) == (goals[0], ANSWERS_MANY)
    assert goals_on((FASTER, MEDIAN_OF_TWO), REQUEST_SAMPLES) == (MEDIAN_OF_TWO,)


def test_the_kind_of_a_goal_is_what_its_metric_declares_and_nothing_is_measured_to_know_it() -> None:
    def measure(_: LoadReport) -> None:
        raise AssertionError("it was measured")

    declared = Goal(measure, p99(0.02).threshold, 0.95, Quantile)  # type: ignore[arg-type]
    assert goals_on((declared,), REQUEST_SAMPLES) == (declared,)


def test_rounds_of_two_decide_a_ratio() -> None:
    slow = LoadReport(requests_per_s=(100.0, 101.0, 99.0, 100.0, 100.5, 99.5) * 3)
    quick = LoadReport(requests_per_s=tuple(2 * rate for rate in slow.requests_per_s))
    assert all_decided((FASTER,), quick, slow)
    assert not all_decided((FASTER,), quick, LoadReport(requests_per_s=slow.requests_per_s[:1]))
