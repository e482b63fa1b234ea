from __future__ import annotations

import math
from datetime import date, timedelta
from typing import Any

import pytest

from deploycheck.language.threshold import Threshold, parse_threshold
from deploycheck.language.vocabulary import Dimension, Metric
from deploycheck.verdict import (
    Exact,
    Measurement,
    Outcome,
    Paired,
    Proportion,
    Quantile,
    Repeats,
    Resampled,
    Sample,
    Verdict,
    decide,
    settle,
)

ACCURACY = Metric("accuracy", Dimension.PROPORTION, "higher", frozenset({"train"}))
SIZE = Metric("size", Dimension.SIZE, "lower", frozenset({"train"}))
LATENCY = Metric("latency", Dimension.TIME, "lower", frozenset({"serve"}), percentiles=True)
TODAY = date(2026, 11, 23)
COUNT = Metric("errors", Dimension.COUNT, "lower", frozenset({"serve"}))


def judged(sample: Sample, threshold: Threshold, **measurement: Any) -> Any:
    return decide(Measurement(sample, **measurement), threshold, confidence=0.95)


@pytest.mark.parametrize(
    ("right", "outcome"),
    [(719, Outcome.PASS), (708, Outcome.PASS), (698, Outcome.UNDECIDED), (660, Outcome.FAIL)],
)
def test_the_interval_is_compared_with_the_threshold_not_the_value(right: int, outcome: Outcome) -> None:
    assert judged(Proportion(right, 719), parse_threshold(">= 97 %", ACCURACY)).outcome is outcome


def test_a_higher_confidence_on_the_threshold_overrides_the_specs() -> None:
    sample = Proportion(707, 719)
    assert judged(sample, parse_threshold(">= 97 %", ACCURACY)).outcome is Outcome.PASS
    assert judged(sample, parse_threshold(">= 97 % @ 99 %", ACCURACY)).outcome is Outcome.UNDECIDED


def test_at_point_the_bare_value_is_compared_and_said_so() -> None:
    verdict = judged(Proportion(98, 100), parse_threshold(">= 97 % @ point", ACCURACY))
    assert verdict.outcome is Outcome.PASS
    assert verdict.confidence is None


def test_undecided_says_how_many_more_examples_would_do() -> None:
    verdict = judged(Proportion(98, 100), parse_threshold(">= 97 %", ACCURACY))
    assert verdict.outcome is Outcome.UNDECIDED
    assert "more examples like these would decide it" in verdict.reason


def test_too_few_requests_for_a_percentile_say_the_number_needed() -> None:
    verdict = judged(Quantile(0.99, (0.001,) * 200), parse_threshold("<= 20 ms", LATENCY))
    assert verdict.outcome is Outcome.UNDECIDED
    assert "at least 600" in verdict.reason


def test_a_size_on_its_limit_passes_and_one_byte_more_fails() -> None:
    threshold = parse_threshold("<= 60 kB", SIZE)
    assert judged(Exact(60_000), threshold).outcome is Outcome.PASS
    assert judged(Exact(60_001), threshold).outcome is Outcome.FAIL


def test_equality_is_exact() -> None:
    threshold = parse_threshold("== 0", COUNT)
    assert judged(Exact(0), threshold).outcome is Outcome.PASS
    assert judged(Exact(1), threshold).outcome is Outcome.FAIL


@pytest.mark.parametrize("sample", [Resampled(lambda _: math.nan, 5), Exact(math.nan)])
def test_a_value_that_is_not_a_number_never_passes(sample: Sample) -> None:
    verdict = judged(sample, parse_threshold("<= 60 kB", SIZE))
    assert (verdict.outcome, verdict.reason) == (Outcome.ERROR, "the measured value is not a number")


@pytest.mark.parametrize(
    ("sample", "threshold"),
    [
        (Proportion(0, 0), parse_threshold(">= 0 %", ACCURACY)),
        (Quantile(0.95, ()), parse_threshold("<= 200 ms", LATENCY)),
    ],
)
def test_a_sample_of_nothing_never_passes_and_says_that_nothing_was_measured(
    sample: Sample, threshold: Threshold
) -> None:
    verdict = judged(sample, threshold)
    assert (verdict.outcome, verdict.reason) == (Outcome.ERROR, "nothing was measured")


def test_an_interval_ends_where_the_metrics_values_end() -> None:
    """Student's t knows nothing of a proportion's ends."""
    verdict = judged(Repeats((1.0, 1.0, 0.8)), parse_threshold(">= 50 %", ACCURACY))
    assert verdict.high == 1.0
    assert verdict.low > 0
    low = judged(Repeats((0.0, 0.0, 0.3)), parse_threshold(">= 50 %", ACCURACY))
    assert low.low == 0.0


def test_a_value_that_its_metric_cannot_have_is_an_error() -> None:
    verdict = judged(Exact(1.5), parse_threshold(">= 50 %", ACCURACY))
    assert verdict.outcome is Outcome.ERROR
    assert "outside of the metric's range" in verdict.reason
    assert judged(Exact(1 + 1e-15), parse_threshold(">= 50 %", ACCURACY)).outcome is Outcome.PASS


def test_a_threshold_that_the_data_let_every_model_meet_is_an_error() -> None:
    """The other model has 30 of 100 right, so no drop is larger than 30 pp."""
    drop = Metric("accuracy_drop", Dimension.DIFFERENCE, "lower", frozenset({"compress"}))
    reach = (-0.7, 0.3)
    free = judged(Paired(0, 0, 100, 30), parse_threshold("<= 30 pp", drop), reach=reach)
    assert free.outcome is Outcome.ERROR
    assert "values from -70 pp to 30 pp" in free.reason
    assert judged(Paired(0, 0, 100, 30), parse_threshold("<= 29 pp", drop), reach=reach).outcome is Outcome.PASS


def test_data_that_can_tell_no_model_from_another_are_an_error() -> None:
    verdict = judged(Proportion(5, 5), parse_threshold(">= 10 %", ACCURACY), unfit="the model has 5 classes")
    assert (verdict.outcome, verdict.reason) == (Outcome.ERROR, "the model has 5 classes")


def test_an_invalid_sample_decides_nothing() -> None:
    verdict = judged(
        Quantile(0.99, (0.001,) * 1000),
        parse_threshold("<= 20 ms", LATENCY),
        invalid="the client fell behind",
    )
    assert verdict.outcome is Outcome.UNDECIDED
    assert verdict.reason == "the client fell behind"


@pytest.mark.parametrize("outcome", list(Outcome))
def test_only_pass_warn_and_waived_let_a_promotion_through(outcome: Outcome) -> None:
    assert outcome.blocks is (outcome not in {Outcome.PASS, Outcome.WARN, Outcome.WAIVED})


def test_a_doubtful_sample_can_pass_but_not_fail() -> None:
    threshold = parse_threshold("<= 20 ms", LATENCY)
    assert judged(Quantile(0.99, (0.001,) * 1000), threshold, doubt="the client fell behind").outcome is Outcome.PASS
    slow = judged(Quantile(0.99, (0.1,) * 1000), threshold, doubt="the client fell behind")
    assert slow.outcome is Outcome.UNDECIDED
    assert slow.reason == "the client fell behind"


def verdict_of(outcome: Outcome) -> Verdict:
    return Verdict(outcome=outcome, value=1.0, low=1.0, high=1.0, confidence=None, samples=1, reason="")


@pytest.mark.parametrize("outcome", [Outcome.FAIL, Outcome.UNDECIDED])
def test_a_warning_and_a_waiver_soften_what_blocks(outcome: Outcome) -> None:
    verdict = verdict_of(outcome)
    assert settle(verdict, "error", None, TODAY).outcome is outcome
    assert settle(verdict, "warn", None, TODAY).outcome is Outcome.WARN
    assert settle(verdict, "error", TODAY, TODAY).outcome is Outcome.WAIVED


def test_a_waiver_that_is_over_fails_even_a_passing_check() -> None:
    verdict = verdict_of(Outcome.PASS)
    over = settle(verdict, "error", TODAY - timedelta(days=1), TODAY)
    assert over.outcome is Outcome.FAIL
    assert "its waiver ended on" in over.reason


def test_no_softening_hides_an_error() -> None:
    verdict = verdict_of(Outcome.ERROR)
    assert settle(verdict, "warn", TODAY, TODAY).outcome is Outcome.ERROR
