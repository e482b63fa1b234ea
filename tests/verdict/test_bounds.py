from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from deploycheck.verdict import (
    Blocks,
    Exact,
    Paired,
    Proportion,
    Quantile,
    WorstOf,
    bounds,
    examples_to_decide,
    value_of,
)

counts = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_proportion_bounds_are_those_of_clopper_and_pearson() -> None:
    low, high = bounds(Proportion(708, 719), 0.95)
    reference = stats.binomtest(708, 719).proportion_ci(0.90, method="exact")
    assert (low, high) == pytest.approx((reference.low, reference.high))


@given(counts, st.floats(0.5, 0.999))
def test_an_interval_holds_its_value_and_widens_with_confidence(count: tuple[int, int], level: float) -> None:
    sample = Proportion(*count)
    low, high = bounds(sample, level)
    wider_low, wider_high = bounds(sample, (1 + level) / 2)
    assert wider_low <= low <= value_of(sample) <= high <= wider_high


@given(counts)
def test_a_scaled_proportion_has_the_scaled_interval(count: tuple[int, int]) -> None:
    low, high = bounds(Proportion(*count), 0.95)
    scaled_low, scaled_high = bounds(Proportion(*count, offset=-0.1, scale=2.0), 0.95)
    assert (scaled_low, scaled_high) == pytest.approx((2 * low - 0.1, 2 * high - 0.1))


@pytest.mark.parametrize("total", [30, 200])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.97])
def test_a_lower_bound_is_wrong_no_more_often_than_it_says(total: int, share: float) -> None:
    wrong = sum(
        stats.binom.pmf(k, total, share) for k in range(total + 1) if bounds(Proportion(k, total), 0.95)[0] > share
    )
    assert wrong <= 0.05


def test_a_paired_upper_bound_is_wrong_no_more_often_than_it_says() -> None:
    total, lost, gained = 60, 0.08, 0.03
    wrong = 0.0
    for b in range(total + 1):
        for c in range(total + 1 - b):
            if bounds(Paired(b, c, total), 0.95)[1] < lost - gained:
                wrong += stats.multinomial.pmf([b, c, total - b - c], total, [lost, gained, 1 - lost - gained])
    assert 0 < wrong <= 0.05


def test_pairing_is_tighter_than_comparing_two_proportions() -> None:
    _, paired = bounds(Paired(5, 5, 2000), 0.95)
    low = bounds(Proportion(1900, 2000), 0.975)[0]
    high = bounds(Proportion(1900, 2000), 0.975)[1]
    assert paired < (high - low) / 2


@pytest.mark.parametrize(("probability", "fewest"), [(0.5, 5), (0.9, 29), (0.95, 59), (0.99, 299), (0.999, 2995)])
def test_a_percentile_has_an_upper_bound_from_the_known_minimum_on(probability: float, fewest: int) -> None:
    enough = Quantile(probability, tuple(float(i) for i in range(fewest)))
    short = Quantile(probability, tuple(float(i) for i in range(fewest - 1)))
    assert bounds(enough, 0.95)[1] == fewest - 1
    assert bounds(short, 0.95)[1] == math.inf


def test_one_slow_request_allowed_needs_473_for_p99() -> None:
    latencies = (0.001,) * 472 + (9.0,)
    assert bounds(Quantile(0.99, latencies), 0.95)[1] == 0.001
    assert bounds(Quantile(0.99, latencies[1:]), 0.95)[1] == 9.0


def test_requests_that_never_came_back_reach_the_upper_bound() -> None:
    latencies = (0.001,) * 290 + (math.inf,) * 10
    assert bounds(Quantile(0.99, latencies), 0.95)[1] == math.inf


@given(st.integers(20, 400), st.sampled_from([0.5, 0.9, 0.95]))
def test_a_quantile_lies_between_its_bounds(n: int, probability: float) -> None:
    sample = Quantile(probability, tuple(float(i) for i in range(n)))
    low, high = bounds(sample, 0.95)
    assert low <= value_of(sample) <= high


def test_block_means_have_students_interval() -> None:
    means = (510.0, 495.0, 505.0, 490.0, 500.0)
    low, high = bounds(Blocks(means), 0.95)
    reference = stats.ttest_1samp(means, 0).confidence_interval(0.90)
    assert (low, high) == pytest.approx((reference.low, reference.high))


def test_one_block_says_nothing() -> None:
    assert bounds(Blocks((500.0,)), 0.95) == (-math.inf, math.inf)


def test_the_worst_slice_counts() -> None:
    sample = WorstOf({"0": Proportion(99, 100), "1": Proportion(80, 100)})
    assert value_of(sample) == 0.80
    assert bounds(sample, 0.95)[0] == bounds(Proportion(80, 100), 0.95)[0]
    assert bounds(sample, 0.95)[1] == bounds(Proportion(80, 100), 0.975)[1]


def test_an_exact_value_has_no_interval() -> None:
    assert bounds(Exact(12.0), 0.95) == (12.0, 12.0)


@given(st.integers(50, 500), st.floats(0.9, 1.0), st.floats(0.5, 0.99))
def test_that_many_more_examples_do_decide(total: int, share: float, limit: float) -> None:
    sample = Proportion(round(share * total), total)
    more = examples_to_decide(sample, limit, 0.95)
    if more is None:
        return
    n = total + more
    low, high = bounds(Proportion(round(sample.successes / total * n), n), 0.95)
    assert low > limit or high < limit
