"""Slow requests in short bursts with quiet between them: a model just too slow passes at most 5 times in 100."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deploycheck.verdict import Quantile, bounds, fewest_requests, looks
from deploycheck.verdict.sequential import fewest_for_bursts, is_rarer, most_events, times_in_tail

SLOW = 0.0105
"""The true share of slow requests, where 0.01 may be slow."""


def share_passed(streams: np.ndarray, limit: float) -> float:
    """Return the share of streams whose p99 passes at any of the looks."""

    def passes(stream: np.ndarray) -> bool:
        seen = np.cumsum(stream > limit)
        certain = [n for n in looks(len(stream)) if seen[n - 1] <= most_events(n, 0.01, 0.95)]
        return any(bounds(Quantile(0.99, tuple(stream[:n].tolist())), 0.95)[1] <= limit for n in certain)

    return sum(map(passes, streams)) / len(streams)


def test_regular_pauses_of_a_few_requests_are_seen_before_a_pass() -> None:
    """Five slow requests of each 476: in one of six streams, the first pause comes after 400 requests."""
    every, length, n = round(5 / SLOW), 5, 1000
    streams = 0.005 * np.exp(0.5 * np.random.default_rng(21).standard_normal((every // 4, n)))
    for phase, stream in enumerate(streams):
        stream[(np.arange(n) + 4 * phase) % every < length] += 1.0
    assert share_passed(streams, 0.5) <= 0.05


def test_pairs_at_random_times_are_seen_before_a_pass() -> None:
    random, gates, n = np.random.default_rng(22), 400, 2000
    streams = 0.005 * np.exp(0.5 * random.standard_normal((gates, n)))
    first = random.random((gates, n)) < SLOW / 2
    streams[first] += 1.0
    streams[:, 1:][first[:, :-1]] += 1.0
    assert share_passed(streams, 0.5) <= 0.05


def bursty_queue(random: np.random.Generator, gates: int, n: int) -> np.ndarray:
    """Return times in a queue where five requests in a row, of a hundred, come ten times as fast as the rest."""
    warm, state = 500, np.zeros(gates, dtype=bool)
    drawn, gaps = random.random((gates, n + warm)), random.exponential(3.2, (gates, n + warm))
    times, waiting = np.empty_like(gaps), np.zeros(gates)
    for step in range(n + warm):
        state = np.where(state, drawn[:, step] >= 1 / 5, drawn[:, step] < 1 / 100)
        times[:, step] = waiting + 1.0
        waiting = np.maximum(0.0, times[:, step] - np.where(state, gaps[:, step] / 10, gaps[:, step]))
    return times[:, warm:]


def test_bursts_of_arrivals_at_a_queue_are_passed_no_more_often_than_it_says() -> None:
    limit, gates = float(np.quantile(bursty_queue(np.random.default_rng(23), 100, 10_000), 1 - SLOW)), 120
    passed = share_passed(bursty_queue(np.random.default_rng(24), gates, 3000), limit)
    assert passed <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / gates)


@given(st.floats(0.0005, 0.5), st.floats(0.5, 0.999))
def test_the_fewest_requests_leave_pairs_no_more_than_the_error_to_hide(slow: float, confidence: float) -> None:
    n = fewest_for_bursts(slow, confidence)
    assert math.exp(-n * slow / 2) <= 1 - confidence + 1e-12
    assert math.exp(-(n - 1) * slow / 2) >= 1 - confidence - 1e-12
    assert fewest_requests(slow, confidence) >= n


@given(st.integers(0, 60), st.integers(1, 5000), st.sampled_from([0.01, 0.05, 0.1]), st.floats(1, 20), st.floats(1, 20))
def test_neither_one_more_slow_request_nor_more_dependence_makes_a_pass(
    events: int, total: int, limit: float, thin: float, other: float
) -> None:
    more, less = max(thin, other), min(thin, other)
    if is_rarer(events + 1, total, limit, 0.95, more):
        assert is_rarer(events, total, limit, 0.95, more)
    if is_rarer(events, total, limit, 0.95, more) and events <= limit * total:
        assert is_rarer(events, total, limit, 0.95, less)


@given(st.integers(20, 3000), st.sampled_from([0.001, 0.01, 0.1, 0.5]), st.integers(0, 2**32 - 1), st.integers(1, 50))
@settings(deadline=None)
def test_a_pass_takes_the_dependence_for_no_less_than_a_failure_does(n: int, slow: float, seed: int, run: int) -> None:
    stream = np.repeat(np.random.default_rng(seed).random(n // run + 1), run)[:n]
    to_pass, to_fail = times_in_tail(stream, slow)
    assert to_pass >= to_fail >= 1


@given(st.integers(600, 2500), st.integers(1, 12))
@settings(deadline=None, max_examples=60)
def test_slow_requests_pass_no_sooner_in_one_burst_than_spread_evenly(n: int, slow: int) -> None:
    spread, burst = np.full(n, 0.005), np.full(n, 0.005)
    spread[np.linspace(0, n - 1, slow).astype(int)] = 1.0
    burst[n // 2 : n // 2 + slow] = 1.0
    in_burst, evenly = (bounds(Quantile(0.99, tuple(stream.tolist())), 0.95)[1] for stream in (burst, spread))
    assert in_burst >= 1.0 or evenly < 1.0
