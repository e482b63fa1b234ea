"""Streams of which a part was taken while the machine was disturbed: that part may let a model pass, never fail it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deploycheck.language import Dimension, Threshold
from deploycheck.verdict import (
    Blocks,
    Events,
    Exact,
    Measurement,
    Outcome,
    Quantile,
    Sample,
    Verdict,
    bounds,
    decide,
    is_decided,
    may_be_settled,
    undisturbed,
)

FAST, SLOW = 0.003, 0.05
LIMIT = 0.03


def marked(quiet: int, noisy: int) -> tuple[bool, ...]:
    return (False,) * quiet + (True,) * noisy


def latencies(quiet: tuple[float, ...] = (), noisy: tuple[float, ...] = ()) -> Quantile:
    return Quantile(0.99, quiet + noisy, disturbed=marked(len(quiet), len(noisy)))


def rates(quiet: tuple[float, ...] = (), noisy: tuple[float, ...] = ()) -> Blocks:
    return Blocks(quiet + noisy, marked(len(quiet), len(noisy)))


def judged(sample: Sample, comparator: str = "<=", limit: float = LIMIT, *, point: bool = False) -> Verdict:
    threshold = Threshold(comparator, limit, "", Dimension.NUMBER, point=point)
    verdict = decide(Measurement(sample, disturbed="the machine was disturbed"), threshold, 0.95)
    assert is_decided(Measurement(sample), threshold, 0.95) == (verdict.outcome in (Outcome.PASS, Outcome.FAIL))
    return verdict


def steady(count: int, value: float) -> tuple[float, ...]:
    """Return blocks of about this mean, none like its neighbours."""
    return tuple((value * (1 + 0.02 * np.random.default_rng(0).standard_normal(count))).tolist())


def test_requests_of_a_machine_that_is_never_quiet_pass_a_model_that_is_fast_all_the_same() -> None:
    assert judged(latencies(noisy=(FAST,) * 700)).outcome is Outcome.PASS
    assert judged(Events((False,) * 700, (True,) * 700), limit=0.02).outcome is Outcome.PASS
    assert judged(rates(noisy=steady(60, 900.0)), ">=", 500.0).outcome is Outcome.PASS


def test_they_do_not_fail_one_that_is_slow_and_the_reason_is_said() -> None:
    for sample, comparator, limit in (
        (latencies(noisy=(SLOW,) * 700), "<=", LIMIT),
        (Events((True,) * 700, (True,) * 700), "<=", 0.02),
        (rates(noisy=steady(60, 100.0)), ">=", 500.0),
    ):
        verdict = judged(sample, comparator, limit)
        assert verdict.outcome is Outcome.UNDECIDED
        assert verdict.reason.startswith("the machine was disturbed; what a disturbed machine slows can't fail")


def test_a_model_that_is_slow_on_the_quiet_machine_fails_though_most_of_it_was_disturbed() -> None:
    assert judged(latencies(quiet=(SLOW,) * 60, noisy=(SLOW,) * 150)).outcome is Outcome.FAIL
    assert judged(rates(quiet=steady(60, 100.0), noisy=steady(60, 100.0)), ">=", 500.0).outcome is Outcome.FAIL


def test_the_quieter_moments_of_a_machine_that_is_hardly_ever_quiet_fail_nothing() -> None:
    assert judged(latencies(quiet=(SLOW,) * 60, noisy=(SLOW,) * 700)).outcome is Outcome.UNDECIDED


def test_it_does_not_pass_by_its_undisturbed_requests_alone() -> None:
    """Else a model could hide its own slow requests behind what takes the machine whenever it is slow."""
    verdict = judged(latencies(quiet=(FAST,) * 1000, noisy=(SLOW,) * 100))
    assert verdict.outcome is Outcome.UNDECIDED
    assert verdict.low == FAST
    assert verdict.high > LIMIT


def test_a_disturbance_that_would_help_does_not_count() -> None:
    """A lower limit of a latency, an upper one of a throughput: slower is better there."""
    assert judged(latencies(noisy=(SLOW,) * 700), ">=").outcome is Outcome.UNDECIDED
    assert judged(latencies(quiet=(SLOW,) * 700, noisy=(SLOW,) * 700), ">=").outcome is Outcome.PASS
    assert judged(latencies(noisy=(FAST,) * 700), ">=").outcome is Outcome.FAIL
    assert judged(rates(noisy=steady(60, 100.0)), "<=", 500.0).outcome is Outcome.UNDECIDED
    assert judged(rates(noisy=steady(60, 900.0)), "<=", 500.0).outcome is Outcome.FAIL


def test_where_disturbed_requests_are_faster_than_the_others_nothing_is_decided() -> None:
    few_slow = ((SLOW,) + (FAST,) * 32) * 3  # 3 % of the undisturbed
    values, marks = (few_slow + (FAST,) * 290) * 100, marked(99, 290) * 100
    contradictory = Quantile(0.99, values, disturbed=marks)
    low, high = bounds(contradictory, 0.95)
    assert low == FAST
    assert high == SLOW
    assert judged(contradictory).outcome is Outcome.UNDECIDED


@pytest.mark.parametrize(
    ("quiet", "noisy", "outcome"),
    [(FAST, FAST, Outcome.PASS), (FAST, SLOW, Outcome.UNDECIDED), (SLOW, SLOW, Outcome.FAIL)],
)
def test_a_bare_value_follows_the_same_rule(quiet: float, noisy: float, outcome: Outcome) -> None:
    assert judged(latencies((quiet,) * 10, (noisy,) * 10), point=True).outcome is outcome


def test_a_bare_value_of_disturbed_requests_alone_can_only_pass() -> None:
    assert judged(latencies(noisy=(FAST,) * 10), point=True).outcome is Outcome.PASS
    assert judged(latencies(noisy=(SLOW,) * 10), point=True).outcome is Outcome.UNDECIDED


def test_a_stream_without_marks_or_with_none_set_is_as_before() -> None:
    values = (FAST,) * 300 + (SLOW,) * 2
    assert bounds(Quantile(0.99, values, disturbed=(False,) * 302), 0.95) == bounds(Quantile(0.99, values), 0.95)
    assert undisturbed(Exact(1.0)) == Exact(1.0)


def test_whether_it_may_be_settled_is_asked_of_all_for_a_pass_and_of_the_undisturbed_for_a_failure() -> None:
    threshold = Threshold("<=", LIMIT, "", Dimension.TIME)
    assert may_be_settled(latencies(noisy=(FAST,) * 700), threshold, 0.95)
    assert not may_be_settled(latencies(noisy=(SLOW,) * 700), threshold, 0.95)
    assert may_be_settled(latencies(quiet=(SLOW,) * 20, noisy=(SLOW,) * 40), threshold, 0.95)


def test_what_would_decide_it_is_said_of_what_can_decide_it() -> None:
    near = (FAST,) * 97 + (SLOW,) * 3
    verdict = judged(latencies(quiet=near, noisy=(math.inf,) * 50))
    assert "more requests like these" in verdict.reason
    assert "requests can't decide it: at least 600" in judged(latencies(noisy=(FAST,) * 100)).reason
