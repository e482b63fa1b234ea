from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from deploycheck.checks.statistics import calibration_error
from deploycheck.verdict import (
    Exact,
    Paired,
    Proportion,
    Quantile,
    Quotient,
    Ratios,
    RelativeDrop,
    Repeats,
    Resampled,
    Retained,
    WorstOf,
    bounds,
    examples_to_decide,
    paired,
    ratio_of,
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


def test_pairing_is_tighter_than_comparing_two_proportions() -> None:
    _, paired = bounds(Paired(5, 5, 2000), 0.95)
    low = bounds(Proportion(1900, 2000), 0.975)[0]
    high = bounds(Proportion(1900, 2000), 0.975)[1]
    assert paired < (high - low) / 2


def test_requests_that_never_came_back_reach_the_upper_bound() -> None:
    latencies = ((0.001,) * 29 + (math.inf,)) * 10
    assert bounds(Quantile(0.99, latencies), 0.95)[1] == math.inf


@given(st.integers(20, 400), st.sampled_from([0.5, 0.9, 0.95]))
def test_a_quantile_lies_between_its_bounds(n: int, probability: float) -> None:
    sample = Quantile(probability, tuple(float(i) for i in range(n)))
    low, high = bounds(sample, 0.95)
    assert low <= value_of(sample) <= high


def test_repeats_have_students_interval() -> None:
    values = (0.971, 0.965, 0.982, 0.975, 0.969)
    low, high = bounds(Repeats(values), 0.95)
    reference = stats.ttest_1samp(values, 0).confidence_interval(0.90)
    assert (low, high) == pytest.approx((reference.low, reference.high))


def test_two_repeats_say_nothing() -> None:
    assert bounds(Repeats((0.97, 0.98)), 0.95) == (-math.inf, math.inf)


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


@pytest.mark.parametrize("total", [40, 719, 5000])
def test_two_models_that_agree_on_everything_differ_by_no_more_than_what_could_be_missed(total: int) -> None:
    low, high = bounds(Paired(0, 0, total), 0.95)
    assert high == pytest.approx(1 - 0.05 ** (1 / total), rel=1e-3)
    assert low == pytest.approx(-high)


@pytest.mark.parametrize(
    ("total", "lost", "gained"),
    [(40, 0.05, 0.0), (40, 0.1, 0.05), (60, 0.05, 0.04), (60, 0.2, 0.1), (80, 0.02, 0.01), (50, 0.3, 0.3)],
)
def test_a_melded_bound_is_wrong_no_more_often_than_it_says(total: int, lost: float, gained: float) -> None:
    """Every outcome that has a chance, weighed by it."""
    wrong = seen = 0.0
    for b in range(total + 1):
        for c in range(total + 1 - b):
            chance = stats.multinomial.pmf([b, c, total - b - c], total, [lost, gained, 1 - lost - gained])
            if chance > 1e-7:
                seen += chance
                wrong += chance * (bounds(Paired(b, c, total), 0.95)[1] < lost - gained)
    assert seen > 0.999
    assert wrong <= 0.05


def test_a_relative_drop_is_one_less_what_is_retained() -> None:
    pairs = Paired(lost=30, gained=10, total=1000, right=900)
    low, high = bounds(RelativeDrop(pairs), 0.95)
    kept_low, kept_high = bounds(Retained(pairs), 0.95)
    assert (low, high) == pytest.approx((1 - kept_high, 1 - kept_low))
    assert value_of(RelativeDrop(pairs)) == pytest.approx(20 / 900)
    assert low < 20 / 900 < high


@given(st.integers(0, 20), st.integers(0, 20), st.integers(100, 900))
def test_what_is_retained_lies_in_its_interval(lost: int, gained: int, right: int) -> None:
    sample = Retained(Paired(lost, gained, 1000, right))
    low, high = bounds(sample, 0.95)
    assert low <= value_of(sample) <= high


def test_a_slice_of_nine_is_never_good_enough_and_a_bad_slice_sinks_the_rest() -> None:
    nine = WorstOf({"a": Proportion(990, 1000), "b": Proportion(9, 9)}, at_least=30)
    assert bounds(nine, 0.95)[0] == -math.inf
    assert bounds(WorstOf({"a": Proportion(990, 1000), "b": Proportion(9, 9)}), 0.95)[0] > 0.7
    sunk = WorstOf({"a": Proportion(500, 1000), "b": Proportion(9, 9)}, at_least=30)
    assert bounds(sunk, 0.95)[1] < 0.6


def test_the_worst_of_what_should_be_low_is_the_highest() -> None:
    sample = WorstOf({"a": Paired(1, 0, 1000), "b": Paired(30, 0, 1000)}, lowest=False)
    assert value_of(sample) == 0.03
    assert bounds(sample, 0.95)[1] == bounds(Paired(30, 0, 1000), 0.95)[1]


def test_a_quotient_lies_between_its_bounds_which_an_unknown_part_leaves_open() -> None:
    known = Quantile(0.5, tuple(1.0 + i / 1000 for i in range(500)))
    low, high = bounds(Quotient(known, Exact(2.0)), 0.95)
    assert low < value_of(Quotient(known, Exact(2.0))) < high
    assert bounds(Quotient(known, Quantile(0.5, ())), 0.95)[0] in (-math.inf, 0.0)


def test_resampling_agrees_with_scipys_bca() -> None:
    values = np.random.default_rng(3).exponential(size=200)
    low, high = bounds(Resampled(lambda rows: float(values[rows].mean()), 200), 0.95)
    reference = stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, method="BCa", n_resamples=9999, rng=np.random.default_rng(0)
    ).confidence_interval
    width = reference.high - reference.low
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=0.1 * width)


def test_resampling_what_is_always_the_same_bounds_nothing() -> None:
    assert bounds(Resampled(lambda _: 1.0, 50), 0.95) == (-math.inf, math.inf)


def test_resampling_bears_what_some_resamples_do_not_define_and_refuses_where_most_do_not() -> None:
    values = np.arange(100.0)
    some = Resampled(lambda rows: math.nan if 0 in rows[-2:] else float(values[rows].mean()), 100)
    assert bounds(some, 0.95)[0] < 49.5 < bounds(some, 0.95)[1]
    assert bounds(Resampled(lambda rows: math.nan if 0 in rows else 1.0 * rows[0], 100), 0.95)[0] == -math.inf


def test_two_models_on_the_same_examples_are_compared_in_pairs() -> None:
    before, after = np.array([True, True, True, False]), np.array([True, False, True, True])
    assert paired(before, after) == Paired(1, 1, 4, 3)
    assert ratio_of(Proportion.of(after), Proportion.of(before)) == Retained(Paired(1, 1, 4, 3))
    assert ratio_of(Exact(3.0), Exact(4.0)) == Exact(0.75)
    assert isinstance(ratio_of(Proportion(3, 4), Proportion(3, 4)), Quotient)


def in_rounds(scale: float, rounds: int, probability: float, size: int = 80, seed: int = 0) -> Quantile:
    """Return latencies of a machine that is slower in every round, ``scale`` times those of a model with 1."""
    drawn = np.random.default_rng(seed).lognormal(size=(rounds, size)) * np.arange(1, rounds + 1)[:, None]
    return Quantile(probability, tuple((scale * drawn).ravel().tolist()), (size,) * rounds)


@pytest.mark.parametrize(("probability", "rounds", "ratios"), [(0.5, 9, 9), (0.9, 9, 9), (0.99, 15, 3), (0.99, 19, 3)])
def test_latencies_in_rounds_are_compared_round_by_round_as_far_out_as_they_reach(
    probability: float, rounds: int, ratios: int
) -> None:
    ratio = ratio_of(in_rounds(1.5, rounds, probability), in_rounds(1.0, rounds, probability))
    assert isinstance(ratio, Ratios)
    assert ratio.rounds == pytest.approx((1.5,) * ratios)  # the machine's drift is in both


def test_a_model_that_never_answers_in_a_round_has_no_ratio_in_it() -> None:
    slow = in_rounds(1.5, 9, 0.5)
    dead = Quantile(0.5, (math.inf,) * 80 + slow.values[80:], slow.rounds)
    ratio = ratio_of(dead, slow)
    assert ratio == Quotient(dead, slow)
    assert not bounds(ratio, 0.95)[1] < 1.5


@pytest.mark.parametrize("spread", [0.2, 0.5, 0.8])
def test_a_longer_tail_is_no_lower_a_percentile(spread: float) -> None:
    """The percentile of 200 latencies is estimated; how far it is off must not depend on the shape of the tail."""
    random, tail = np.random.default_rng(4), stats.norm.ppf(0.99)
    ones = np.exp(spread * (random.standard_normal((2000, 200)) - tail))
    others = np.exp(0.5 * (random.standard_normal((2000, 200)) - tail))
    sides = (Quantile(0.99, tuple(side.ravel().tolist()), (200,) * 2000) for side in (ones, others))
    assert value_of(ratio_of(*sides)) == pytest.approx(1.0, abs=0.02)


def test_rounds_too_few_for_a_percentile_give_no_ratio() -> None:
    assert ratio_of(in_rounds(1.5, 2, 0.99), in_rounds(1.0, 2, 0.99)) == Ratios(())


def test_nothing_is_a_share_of_what_is_not_positive() -> None:
    def constant(value: float) -> Resampled:
        return Resampled(lambda rows: value + 0.01 * float(rows.mean()) / 100, 100)

    assert math.isnan(value_of(ratio_of(constant(-0.5), constant(-0.1))))
    assert bounds(ratio_of(constant(-0.5), constant(-0.1)), 0.95) == (-math.inf, math.inf)
    assert ratio_of(Exact(0.0), Exact(0.0)) == Exact(1.0)
    assert ratio_of(Exact(2.0), Exact(0.0)) == Exact(math.inf)
    assert math.isnan(value_of(ratio_of(Exact(math.nan), Exact(math.nan))))


def test_a_slice_that_defines_nothing_leaves_the_worst_open_wherever_it_stands() -> None:
    parts = {"a": Proportion(90, 100), "b": Proportion(0, 0)}
    for order in (parts, dict(reversed(parts.items()))):
        assert value_of(WorstOf(order)) == 0.9
        assert bounds(WorstOf(order, at_least=1), 0.95)[0] == -math.inf


def test_a_statistic_that_resampling_moves_is_bounded_on_the_side_it_moves_to() -> None:
    """A calibration error grows in every resample: what it is corrected by must not pass one that is too large."""
    random, true, passed = np.random.default_rng(2), 0.05, 0
    for _ in range(20):
        sure = random.uniform(0.55, 0.99, 400)
        outputs = np.stack([np.zeros(400), np.log(sure / (1 - sure))], axis=1)
        labels = (random.random(400) < sure - true).astype(int)
        passed += bounds(calibration_error.measure(labels=labels, outputs=outputs).sample, 0.95)[1] < true
    assert passed <= 1


@pytest.mark.parametrize("size", [5, 20])
def test_resampling_few_examples_is_as_wide_as_students_t(size: int) -> None:
    values = np.random.default_rng(6).standard_normal((120, size))
    above = sum(bounds(Resampled(lambda rows, v=v: float(v[rows].mean()), size), 0.95)[0] > 0 for v in values)
    assert above / 120 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 120)


def test_a_statistic_and_its_opposite_have_opposite_bounds() -> None:
    random = np.random.default_rng(7)
    sure = random.uniform(0.55, 0.99, 300)
    outputs = np.stack([np.zeros(300), np.log(sure / (1 - sure))], axis=1)
    labels = (random.random(300) < sure).astype(int)
    error = calibration_error.measure(labels=labels, outputs=outputs).sample
    assert isinstance(error, Resampled)
    low, high = bounds(error, 0.95)
    opposite = Resampled(lambda rows: -error.statistic(rows), 300, lowest=-error.highest, highest=-error.lowest)
    assert bounds(opposite, 0.95) == pytest.approx((-high, -low), rel=0.02)


def rmse_with_an_outlier(lowest: float = -math.inf) -> Resampled:
    """Return a root mean square of 100 errors, one of which is far from all others."""
    squares = np.array([1.0] * 99 + [1e6])
    return Resampled(lambda rows: math.sqrt(squares[rows].mean()), 100, lowest=lowest)


def test_the_bounds_of_a_statistic_end_where_its_scale_does() -> None:
    low, high = bounds(rmse_with_an_outlier(), 0.95)
    assert low < 0
    assert bounds(rmse_with_an_outlier(lowest=0.0), 0.95) == (0.0, high)
    perfect = Resampled(lambda _: 1.0, 50, lowest=0.0, highest=1.0)
    assert bounds(perfect, 0.95) == (0.0, 1.0)


def test_a_ratio_of_two_statistics_is_not_negative_where_they_are_not() -> None:
    one = rmse_with_an_outlier(lowest=0.0)
    ratio = ratio_of(one, Resampled(lambda _: 1.0, 100, lowest=0.0))
    assert isinstance(ratio, Resampled)
    assert (ratio.lowest, ratio.highest) == (0.0, math.inf)
    assert bounds(ratio, 0.95)[0] == 0.0
    unknown = ratio_of(rmse_with_an_outlier(), one)
    assert isinstance(unknown, Resampled)
    assert unknown.lowest == -math.inf


@pytest.mark.parametrize("size", [0, 1, 2])
def test_a_handful_of_examples_bounds_little_and_breaks_nothing(size: int) -> None:
    values = np.array([0.2, 0.6])
    sample = Resampled(lambda rows: float(values[rows].mean()), size)
    for confidence in (0.5, 0.95, 0.999):
        low, high = bounds(sample, confidence)
        assert low <= high
        assert size > 1 or (low, high) == (-math.inf, math.inf)


def test_a_round_in_which_nothing_counted_has_no_ratio() -> None:
    one = Quantile(0.5, (0.1,) * 160, (80, 0, 80))
    assert isinstance(ratio_of(one, Quantile(0.5, (0.1,) * 240, (80, 80, 80))), Quotient)
