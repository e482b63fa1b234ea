"""What is said of a call that is too close, and that it is true."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploycheck.language import Dimension, Threshold
from deploycheck.verdict import (
    Blocks,
    Events,
    Measurement,
    Outcome,
    Paired,
    Proportion,
    Quantile,
    Quotient,
    Ratios,
    Repeats,
    Resampled,
    Sample,
    Verdict,
    WorstOf,
    bounds,
    decide,
    examples_to_decide,
    may_be_settled,
    value_of,
)


def threshold(comparator: str, value: float) -> Threshold:
    return Threshold(comparator, value, "", Dimension.NUMBER)


SLOW_NOW_AND_THEN = tuple(0.1 if n % 125 == 60 else 0.001 for n in range(1000))
GRADES = np.resize(np.linspace(0.6, 1.0, 20), 200)
NOISY = tuple((100 + 8 * np.random.default_rng(0).standard_normal(30)).tolist())


@pytest.mark.parametrize(
    ("sample", "asked", "said"),
    [
        (
            Quantile(0.99, (0.001,) * 200),
            threshold("<=", 0.02),
            "200 requests can't decide it: at least 600",
        ),
        (Quantile(0.99, SLOW_NOW_AND_THEN), threshold("<=", 0.02), r"about [\d,]+ more requests like these"),
        (Events((False,) * 500), threshold("<=", 0.001), r"about [\d,]+ more requests like these"),
        (Blocks(NOISY), threshold(">=", 99.0), r"about [\d,]+ more blocks like these"),
        (Ratios((1.2, 1.3, 1.1, 1.25) * 3), threshold(">=", 1.19), r"about [\d,]+ more rounds like these"),
        (Repeats((0.97, 0.98)), threshold(">=", 0.97), "2 seeds are too few: at least 3 are needed"),
        (Repeats((0.96, 0.98, 0.97)), threshold(">=", 0.97), "more seeds would narrow it"),
        (Proportion(98, 100), threshold(">=", 0.97), r"about [\d,]+ more examples like these"),
        (Paired(5, 0, 700, 690), threshold("<=", 0.01), r"about [\d,]+ more examples like these"),
        (Resampled(lambda _: 1.0, 50), threshold(">=", 0.9), "every resample of the examples scores the same"),
        (
            Resampled(lambda rows: float(GRADES[rows].mean()), len(GRADES)),
            threshold(">=", 0.79),
            r"about [\d,]+ more examples like these",
        ),
        (
            WorstOf({"a": Proportion(99, 100), "b": Proportion(9, 9)}, at_least=30),
            threshold(">=", 0.9),
            "slice b has 9 examples, at least 30 are asked for",
        ),
        (
            WorstOf({"a": Proportion(990, 1000), "b": Proportion(47, 50)}),
            threshold(">=", 0.9),
            r"slice b: about [\d,]+ more examples",
        ),
    ],
)
def test_a_close_call_says_what_would_decide_it(sample: Sample, asked: Threshold, said: str) -> None:
    verdict = decide(Measurement(sample), asked, 0.95)
    assert verdict.outcome is Outcome.UNDECIDED
    assert re.search(said, verdict.reason)


@pytest.mark.parametrize(
    ("sample", "grown"),
    [
        (Quantile(0.99, SLOW_NOW_AND_THEN), lambda n: Quantile(0.99, (SLOW_NOW_AND_THEN * (n // 1000 + 1))[:n])),
        (Proportion(98, 100), lambda n: Proportion(round(0.98 * n), n)),
    ],
)
def test_that_many_more_do_decide_it(sample: Sample, grown) -> None:
    asked = threshold("<=", 0.02) if isinstance(sample, Quantile) else threshold(">=", 0.97)
    reason = decide(Measurement(sample), asked, 0.95).reason
    more = int(re.search(r"about ([\d,]+) more", reason)[1].replace(",", ""))  # type: ignore[index]
    now = 1000 if isinstance(sample, Quantile) else 100
    assert decide(Measurement(grown(int(now + 1.1 * more))), asked, 0.95).outcome is not Outcome.UNDECIDED
    assert decide(Measurement(grown(now + more // 2)), asked, 0.95).outcome is Outcome.UNDECIDED


def test_that_many_more_examples_do_decide_a_statistic() -> None:
    asked = threshold(">=", 0.79)

    def decided(size: int) -> Verdict:
        grades = np.resize(GRADES, size)
        return decide(Measurement(Resampled(lambda rows: float(grades[rows].mean()), size)), asked, 0.95)

    more = int(re.search(r"about ([\d,]+) more", decided(200).reason)[1].replace(",", ""))  # type: ignore[index]
    assert decided(200 + round(1.2 * more / 20) * 20).outcome is Outcome.PASS
    assert decided(200 + round(0.5 * more / 20) * 20).outcome is Outcome.UNDECIDED


@pytest.mark.parametrize(
    "statistic", [lambda values: values.mean(), lambda values: math.sqrt((values**2).mean())], ids=["mean", "rmse"]
)
def test_of_a_value_that_one_example_decides_no_number_of_examples_is_given(
    statistic: Callable[[np.ndarray], float],
) -> None:
    errors = np.array([1.0] * 99 + [1000.0])
    sample = Resampled(lambda rows: float(statistic(errors[rows])), 100, lowest=0.0)
    verdict = decide(Measurement(sample), threshold("<=", 2.0), 0.95)
    assert verdict.outcome is Outcome.UNDECIDED
    assert verdict.low >= 0
    assert verdict.reason == "the examples differ too much to say how many more would decide it"


def test_a_bound_just_above_the_end_of_the_scale_gives_no_number_of_examples() -> None:
    grades = np.resize(GRADES, 200)
    free = Resampled(lambda rows: float(grades[rows].mean()), 200)
    value, (low, _) = value_of(free), bounds(free, 0.95)
    limit = (low + value) / 2
    assert examples_to_decide(free, limit, 0.95) is not None
    near = replace(free, lowest=low - 0.01 * (value - low))
    assert examples_to_decide(near, limit, 0.95) is None


@given(st.lists(st.booleans(), min_size=1, max_size=400), st.sampled_from([0.01, 0.1, 0.5]))
def test_what_is_decided_may_be_settled(happened: list[bool], limit: float) -> None:
    asked = threshold("<=", limit)
    sample = Events(tuple(happened))
    settled = decide(Measurement(sample), asked, 0.95).outcome is not Outcome.UNDECIDED
    assert may_be_settled(sample, asked, 0.95) or not settled
    stream = Quantile(1 - limit, tuple(1.0 if flag else 0.0 for flag in happened))
    between = threshold("<=", 0.5)
    settled = decide(Measurement(stream), between, 0.95).outcome is not Outcome.UNDECIDED
    assert may_be_settled(stream, between, 0.95) or not settled


@pytest.mark.parametrize(("limit", "fewest"), [(0.97, 99), (0.99, 299), (0.9, 29), (0.999, 2995)])
def test_a_test_set_has_a_least_size_for_its_threshold(limit: float, fewest: int) -> None:
    asked = threshold(">=", limit)
    assert decide(Measurement(Proportion(fewest, fewest)), asked, 0.95).outcome is Outcome.PASS
    assert decide(Measurement(Proportion(fewest - 1, fewest - 1)), asked, 0.95).outcome is Outcome.UNDECIDED


def test_of_a_queue_it_counts_what_its_dependence_takes() -> None:
    """Nothing is over the limit, and still it isn't decided: what comes is slow together."""
    waits, waiting, random = [], 0.0, np.random.default_rng(1)
    for _ in range(700):
        waits.append(waiting + 1.0)
        waiting = max(0.0, waits[-1] - random.exponential(2.0))
    reason = decide(Measurement(Quantile(0.99, tuple(waits))), threshold("<=", max(waits)), 0.95).reason
    more = int(re.search(r"about ([\d,]+) more requests like these", reason)[1].replace(",", ""))  # type: ignore[index]
    assert more > 200


def test_two_that_were_measured_apart_say_how_much_more_of_each() -> None:
    over, under = (Quantile(0.5, tuple(np.random.default_rng(n).lognormal(size=200))) for n in (0, 1))
    verdict = decide(Measurement(Quotient(over, under)), threshold("<=", 1.3), 0.95)
    assert verdict.outcome is Outcome.UNDECIDED
    assert re.search(r"about [\d,]+ more of each, like these, would decide it", verdict.reason)


@pytest.mark.parametrize(
    ("over", "under", "said"),
    [
        (Events((True,) * 3 + (False,) * 597), Events((False,) * 600), "within the interval of the ratio"),
        (Quantile(0.99, (0.1,) * 590 + (math.inf,) * 10), Quantile(0.99, (0.1,) * 600), "within the interval"),
        (Events((False,) * 600), Events((False,) * 600), "the ratio is undefined: it is relative to 0"),
    ],
)
def test_a_ratio_that_is_infinite_or_none_is_undecided_in_words(over: Sample, under: Sample, said: str) -> None:
    verdict = decide(Measurement(Quotient(over, under)), threshold("<=", 1.0), 0.95)
    assert verdict.outcome is Outcome.UNDECIDED
    assert said in verdict.reason


@given(st.integers(0, 2**32 - 1), st.floats(0.9, 1.0))
@settings(max_examples=40, deadline=None)
def test_no_fewer_than_none_more_would_decide_it(seed: int, limit: float) -> None:
    rates = tuple((100 + 8 * np.random.default_rng(seed).standard_normal(120)).tolist())
    verdict = decide(Measurement(Blocks(rates)), threshold(">=", 100 * limit), 0.95)
    assert "-" not in verdict.reason
