"""Streams: the bounds hold at any time, and the dependence of what comes is measured and allowed for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import signal, stats

from deploycheck.verdict import (
    Blocks,
    Events,
    Quantile,
    Ratios,
    bounds,
    fewest_for_rate,
    fewest_requests,
    fewest_rounds,
    looks,
)
from deploycheck.verdict.sequential import (
    FEWEST_BLOCKS,
    autocorrelation_time,
    clustering,
    evidence_above,
    evidence_below,
    fewest_events,
    is_more_frequent,
    is_rarer,
    most_events,
    quantile_bounds,
    reach_in_deviations,
    rounds_bounds,
)

limits = st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.5, 0.9])
CERTAIN = -math.log(0.05)


@given(st.integers(0, 199), st.integers(200, 3000), limits)
@example(0, 320, 0.9)  # where a share is less than the smallest number
def test_more_events_are_less_evidence_that_they_are_rare(events: int, total: int, limit: float) -> None:
    assert evidence_below(events + 1, total, limit) <= evidence_below(events, total, limit) + 1e-9
    assert evidence_above(events + 1, total, limit) >= evidence_above(events, total, limit) - 1e-9


@given(st.integers(1, 3000), limits, st.sampled_from([0.9, 0.95, 0.99]))
def test_the_most_and_the_fewest_events_are_where_the_evidence_crosses(
    total: int, limit: float, confidence: float
) -> None:
    asked = total, limit, confidence, 1.0
    most, fewest = most_events(total, limit, confidence), fewest_events(total, limit, confidence)
    assert most < fewest
    assert most < 0 or is_rarer(most, *asked)
    assert not is_rarer(most + 1, *asked)
    assert fewest > total or is_more_frequent(fewest, *asked)
    assert not is_more_frequent(fewest - 1, *asked)
    certain = -math.log(1 - confidence)
    assert most < 0 or evidence_below(most, total, limit) >= certain
    assert most < 0 or evidence_below(most + 1, total, limit) < certain


def test_the_fewest_requests_for_a_percentile_are_known_beforehand() -> None:
    assert fewest_for_rate(0.01, 0.95) == 377
    assert most_events(377, 0.01, 0.95) == 0
    assert most_events(376, 0.01, 0.95) == -1
    assert fewest_requests(0.01, 0.95) == 600
    latencies = (0.001,) * 600
    assert bounds(Quantile(0.99, latencies), 0.95)[1] == 0.001
    assert bounds(Quantile(0.99, latencies[1:]), 0.95)[1] == math.inf


def test_a_handful_of_slow_requests_fails_a_model_that_is_slow() -> None:
    assert fewest_events(3, 0.01, 0.95) <= 3
    assert bounds(Quantile(0.99, (0.5,) * 3), 0.95)[0] == 0.5


def test_no_request_alone_decides_and_no_few_do_of_what_half_of_them_may_be() -> None:
    assert bounds(Quantile(0.99, (0.5,)), 0.95)[0] == -math.inf
    assert bounds(Events((True,)), 0.95)[0] == 0
    for times in (6, 29):
        assert bounds(Quantile(0.5, (0.5,) * times), 0.95) == (-math.inf, math.inf)


@pytest.mark.parametrize(("probability", "correlation"), [(0.5, 0.9), (0.9, 0.9), (0.9, 0.5)])
def test_a_stream_is_not_decided_before_it_shows_how_it_depends(probability: float, correlation: float) -> None:
    """Just on the wrong side of the limit: slow ones come in clusters, none of which may have come yet."""
    streams, most = 60, 2000
    slow = 1.05 * (1 - probability)
    limit = float(stats.norm.ppf(1 - slow))

    def passes(stream: np.ndarray) -> bool:
        return any(quantile_bounds(tuple(stream[:n].tolist()), probability, 0.95)[1] <= limit for n in looks(most))

    assert sum(passes(autoregressive(correlation, most, seed)) for seed in range(streams)) / streams <= 0.05


@pytest.mark.parametrize("limit", [0.01, 0.1, 0.5])
def test_at_the_limit_itself_nothing_is_certain_more_often_than_it_says(limit: float) -> None:
    """Ville's inequality, on two thousand independent streams that are looked at again and again."""
    streams, most = 2000, 3000
    random, n = np.random.default_rng(1), np.array(list(looks(most)))
    events = np.cumsum(random.binomial(np.diff(n, prepend=0), limit, (streams, len(n))), axis=1)
    passed = (events <= np.array([most_events(int(m), limit, 0.95) for m in n])).any(axis=1)
    failed = (events >= np.array([fewest_events(int(m), limit, 0.95) for m in n])).any(axis=1)
    assert 0 < passed.mean() <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / streams)
    assert 0 < failed.mean() <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / streams)


def queue(random: np.random.Generator, streams: int, n: int) -> np.ndarray:
    """Return times in a queue that is busy half of the time, ``[streams, n]``."""
    gaps, service = random.exponential(2.0, (streams, n + 300)), random.gamma(10, 0.1, (streams, n + 300))
    times, waiting = np.empty_like(gaps), np.zeros(streams)
    for step in range(n + 300):
        times[:, step] = waiting + service[:, step]
        waiting = np.maximum(0.0, times[:, step] - gaps[:, step])
    return times[:, 300:]


def test_a_queue_whose_requests_are_slow_together_is_passed_no_more_often_than_it_says() -> None:
    """The limit is its p98.95: just too slow. Taken for independent, a quarter of them pass."""
    streams = queue(np.random.default_rng(2), 300, 2000)
    limit = float(np.quantile(queue(np.random.default_rng(3), 100, 10_000), 1 - 0.0105))
    passed = naive = 0
    for stream in streams:
        seen = np.cumsum(stream > limit)
        at = [n for n in looks(2000) if seen[n - 1] <= most_events(n, 0.01, 0.95)]
        naive += bool(at)
        passed += any(bounds(Quantile(0.99, tuple(stream[:n].tolist())), 0.95)[1] <= limit for n in at)
    assert naive / len(streams) > 0.1
    assert passed / len(streams) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / len(streams))


def autoregressive(correlation: float, n: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(n) * math.sqrt(1 - correlation**2)
    return np.asarray(signal.lfilter([1.0], [1.0, -correlation], noise))


def test_the_autocorrelation_time_of_a_stream_is_what_it_is_known_to_be() -> None:
    independent = [autocorrelation_time(autoregressive(0.0, 4000, seed)) for seed in range(20)]
    assert min(independent) == 1
    assert np.mean(independent) < 1.2
    known = (1 + 0.9) / (1 - 0.9)
    found = [autocorrelation_time(autoregressive(0.9, 20_000, seed)) for seed in range(5)]
    assert np.mean(found) == pytest.approx(known, rel=0.5)
    assert min(found) > 0.9 * known  # it errs on the cautious side


@given(st.lists(st.floats(0, 10), max_size=60))
def test_an_autocorrelation_time_is_never_under_one(values: list[float]) -> None:
    assert autocorrelation_time(np.array(values)) >= 1


def test_events_that_come_together_cluster() -> None:
    flags = np.zeros(1000, dtype=bool)
    flags[100:120] = True
    assert clustering(flags) == pytest.approx(19.6, rel=0.01)
    assert clustering(np.roll(np.tile([True] + [False] * 9, 100), 3)) == 1
    assert clustering(np.ones(50, dtype=bool)) == 1


def test_a_burst_counts_as_little_more_than_one_event() -> None:
    """Twelve slow requests of 5,000, in one stall, are not twelve independent ones: nothing is certain of them."""
    stalled = (9.0,) * 12 + (0.001,) * 600
    assert bounds(Quantile(0.99, stalled), 0.95)[0] < 9.0
    spread = ((9.0,) + (0.001,) * 20) * 12
    assert bounds(Quantile(0.99, spread), 0.95)[0] == 9.0


@given(st.integers(0, 30), st.integers(30, 400), st.randoms(use_true_random=False))
def test_a_rate_lies_between_its_bounds_which_are_where_it_becomes_certain(events: int, total: int, random) -> None:
    flags = [True] * events + [False] * (total - events)
    random.shuffle(flags)
    low, high = bounds(Events(tuple(flags)), 0.95)
    wider_low, wider_high = bounds(Events(tuple(flags)), 0.99)
    assert 0 <= wider_low <= low <= events / total <= high <= wider_high <= 1
    if max(autocorrelation_time(np.array(flags, float)), clustering(np.array(flags))) == 1:
        assert high == 1 or evidence_below(events, total, min(1.0, high * 1.001)) >= CERTAIN
        assert not is_rarer(events, total, high * 0.999, 0.95, 1.0)


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=500), st.sampled_from([0.5, 0.9, 0.99]))
def test_bounds_on_a_quantile_are_observations_about_it(values: list[float], probability: float) -> None:
    low, high = bounds(Quantile(probability, tuple(values)), 0.95)
    assert low == -math.inf or low in values
    assert high == math.inf or high in values
    assert low <= high


def test_blocks_at_the_limit_are_passed_no_more_often_than_it_says() -> None:
    streams, most = 400, 150
    drawn = 500 + 50 * np.random.default_rng(4).standard_normal((streams, most))
    passed = sum(
        any(bounds(Blocks(tuple(stream[:n].tolist())), 0.95)[0] >= 500 for n in looks(most)) for stream in drawn
    )
    assert passed / streams <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / streams)


def test_too_few_blocks_say_nothing() -> None:
    assert bounds(Blocks((500.0, 501.0) * (FEWEST_BLOCKS // 2)), 0.95) == (-math.inf, math.inf)


def test_what_is_far_from_its_limit_is_decided_by_few_blocks_however_they_depend() -> None:
    """Ten times the throughput that is asked for: no wait until a drifting machine has been seen for long."""
    streams = [5000 + 500 * autoregressive(0.6, 2 * FEWEST_BLOCKS, seed) for seed in range(100)]
    for blocks, most in ((FEWEST_BLOCKS, 50), (2 * FEWEST_BLOCKS, 15)):
        lows = [bounds(Blocks(tuple(rates[:blocks].tolist())), 0.95)[0] for rates in streams]
        assert sum(low <= 500 for low in lows) <= most


def test_a_drift_far_above_its_limit_is_no_reason_to_wait() -> None:
    """It goes up and down as a whole, and tells no more than two independent blocks do."""
    drifting = 6000 + 1500 * np.sin(np.linspace(0, 3 * math.pi, 60))
    assert len(drifting) / autocorrelation_time(drifting) < 3
    low, high = bounds(Blocks(tuple(drifting.tolist())), 0.95)
    assert 6000 / 20 < low < 6000 < high
    assert bounds(Blocks((0.0, *drifting.tolist())), 0.95)[0] >= 0


def test_blocks_of_which_a_few_are_huge_are_passed_no_more_often_than_it_says() -> None:
    """Their logarithms are normal, which the product of the blocks allows for; their mean is just the limit."""
    streams, most, spread = 400, 100, 1.5
    drawn = 500 * np.exp(spread * np.random.default_rng(8).standard_normal((streams, most)) - spread**2 / 2)
    passed = sum(
        any(bounds(Blocks(tuple(stream[:n].tolist())), 0.95)[0] >= 500 for n in looks(most)) for stream in drawn
    )
    assert passed / streams <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / streams)


@given(st.lists(st.floats(0, 1e6), min_size=FEWEST_BLOCKS, max_size=60))
def test_no_bound_on_a_mean_of_rates_is_negative_or_above_the_mean(values: list[float]) -> None:
    low, high = bounds(Blocks(tuple(values)), 0.95)
    assert 0 <= low <= math.fsum(values) / len(values) * (1 + 1e-9)
    assert high >= low


def test_a_few_rounds_that_agree_say_nothing_yet() -> None:
    fewest = fewest_rounds(0.95)
    agreeing = (1.2, 1.21) * fewest
    assert bounds(Ratios(agreeing[: fewest - 1]), 0.95) == (0.0, math.inf)
    low, high = bounds(Ratios(agreeing[:fewest]), 0.95)
    assert 1.1 < low < high < 1.3


def test_rounds_that_depend_on_each_other_are_not_taken_for_more_than_they_are() -> None:
    """Just on the wrong side of the limit, looked at after each round as a comparison does: at most 5 % pass."""
    random, gates, most, correlation = np.random.default_rng(11), 300, 60, 0.4
    drawn = random.standard_normal((gates, most))
    drawn[:, 1:] *= math.sqrt(1 - correlation**2)
    streams = signal.lfilter([1.0], [1.0, -correlation], drawn, axis=1) - 0.1

    def passes(stream: np.ndarray) -> bool:
        return any(rounds_bounds(tuple(stream[:n].tolist()), 0.95)[0] >= 0 for n in range(7, most + 1))

    assert sum(map(passes, streams)) / gates <= 0.05


@given(st.integers(2, 500))
def test_a_mean_is_the_better_known_the_more_of_it_is_seen(n: int) -> None:
    assert reach_in_deviations(n + 1, 0.95) <= reach_in_deviations(n, 0.95)
    assert reach_in_deviations(n, 0.95) <= reach_in_deviations(n, 0.99)


def test_a_ratio_lies_between_its_bounds() -> None:
    rounds = tuple(np.exp(0.2 + 0.05 * np.random.default_rng(5).standard_normal(30)).tolist())
    low, high = bounds(Ratios(rounds), 0.95)
    assert low < math.exp(0.2) < high
    assert high / low < 1.1


def test_looks_are_at_each_of_the_first_and_ever_rarer() -> None:
    taken = list(looks(1000))
    assert taken[:5] == [1, 2, 3, 4, 5]
    assert taken[-1] == 1000
    assert len(taken) < 130
    assert list(looks(1)) == [1]
