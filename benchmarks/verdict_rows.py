"""The rows of ``verdicts.py``: models whose true value is known, and the streams that they give."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from bursts import bursty_queue, pauses, stopped_queue, waits
from scipy import signal, special

from deploycheck.language import Dimension
from deploycheck.language.threshold import Threshold
from deploycheck.verdict import Blocks, Events, Paired, Proportion, Quantile, Ratios, Sample, ratio_of

CONFIDENCE = 0.95
Draw = Callable[[np.random.Generator, int, int], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One kind of gate on one model: how its streams are drawn (``[gates, n]``), and whether the model is good.

    ``best`` is the number of samples of Wald's test on independent observations, ``time`` the true autocorrelation
    time. The load lasts for at least ``least`` observations. Wrong verdicts are also counted by budget where
    ``by_budget``.
    """

    name: str
    truth: str
    good: bool
    draw: Draw
    sample: Callable[[np.ndarray], Sample]
    threshold: Threshold
    budget: int
    best: float | None
    slow: Callable[[np.ndarray], np.ndarray] | None = None
    share: float = 0.0
    time: float = 1.0
    fixed: bool = False
    alone: bool = False
    least: int = 1
    by_budget: bool = False


# How streams are drawn


def normal(random: np.random.Generator, gates: int, n: int, correlation: float = 0.0) -> np.ndarray:
    """Draw standard normal streams, autoregressive of order 1."""
    drawn = random.standard_normal((gates, n))
    if not correlation:
        return drawn
    drawn[:, 1:] *= math.sqrt(1 - correlation**2)
    return signal.lfilter([1.0], [1.0, -correlation], drawn, axis=1)


def log_normal(random: np.random.Generator, gates: int, n: int, correlation: float = 0.0) -> np.ndarray:
    """Draw latencies whose logarithms are normal: median 5 ms."""
    return 0.005 * np.exp(0.5 * normal(random, gates, n, correlation))


def bimodal(random: np.random.Generator, gates: int, n: int) -> np.ndarray:
    """Draw latencies of which one in fifty takes another path, some eight times as long."""
    long = random.random((gates, n)) < 0.02
    return np.where(long, 8.0, 1.0) * log_normal(random, gates, n)


def queue(random: np.random.Generator, gates: int, n: int, load: float = 0.5) -> np.ndarray:
    """Draw the time in a queue with Poisson arrivals and log-normal service of 1 on average (Lindley's recursion)."""
    warm = 500
    gaps = random.exponential(1 / load, (gates, n + warm))
    service = np.exp(0.3 * random.standard_normal((gates, n + warm)) - 0.045)
    return waits(gaps, service)[:, warm:]


@functools.cache
def long_run(draw: Draw) -> np.ndarray:
    """Return many long streams of a kind, to read its true quantiles and autocorrelation from."""
    return draw(np.random.default_rng(12345), 200, 20_000)


def autocorrelation_time(flags: np.ndarray) -> float:
    """Return ``1 + 2 * sum(autocorrelations)`` of many long streams, each ``[n]``."""
    centred = flags - flags.mean()
    n = flags.shape[1]
    spectrum = np.abs(np.fft.rfft(centred, 2 * n)) ** 2
    covariance = np.fft.irfft(spectrum).mean(axis=0)[: n // 10]
    time = 1.0
    for lag in range(1, len(covariance)):
        time += 2 * covariance[lag] / covariance[0]
        if lag > 6 * time:
            break
    return time


def time_above(draw: Draw, value: float) -> float:
    """Return the true autocorrelation time of being above a value."""
    above = long_run(draw) > value
    return autocorrelation_time(above.astype(float)) if above.any() else 1.0


# The rows


def divergence(true: float, limit: float) -> float:
    """Return the information, in nats, that one observation gives against the limit."""
    pairs = ((true, limit), (1 - true, 1 - limit))
    return sum(a * math.log(a / b) for a, b in pairs if a > 0)


def wald(information: float) -> float:
    """Return the expected samples of the test that knows the truth (Wald, Sequential Analysis, 1947)."""
    return -math.log(1 - CONFIDENCE) / information if information else math.inf


def threshold(comparator: str, value: float, dimension: Dimension) -> Threshold:
    return Threshold(comparator, value, "", dimension)


def latency_rows(
    name: str,
    draw: Draw,
    budget: int = 5000,
    probability: float = 0.99,
    least: int = 1,
    longest: int = 0,
    only: str = "",
) -> Iterator[Row]:
    """Yield a latency's rows; ``longest`` is a larger budget for models just worse, which is also shown by budget."""
    full_name, allowed = f"p{100 * probability:g} {name}", 1 - probability
    if only not in full_name:
        return
    for truth, share in (
        ("just worse", 1.05 * allowed),
        ("just better", 0.95 * allowed),
        ("clearly better", allowed / 10 if allowed < 0.1 else allowed / 2),
        ("clearly worse", 5 * allowed if allowed < 0.1 else (1 + allowed) / 2),
        *(([("none slow", 0.0), ("half slow", 0.5)]) if name == "log-normal" else []),
    ):
        streams = long_run(draw)
        limit = float(np.quantile(streams, 1 - share))
        time = max(1.0, time_above(draw, limit), time_above(draw, float(np.quantile(streams, probability))))
        yield Row(
            name=full_name,
            truth=truth,
            good=share <= allowed,
            draw=draw,
            sample=lambda x: Quantile(probability, tuple(x.tolist())),
            threshold=threshold("<=", limit, Dimension.TIME),
            budget=max(budget, longest if truth == "just worse" else 0),
            best=wald(divergence(share, allowed)),
            slow=functools.partial(np.less, limit),
            share=allowed,
            time=time,
            least=least,
            by_budget=longest > 0 and truth == "just worse",
        )


def burst_rows(only: str) -> Iterator[Row]:
    """Yield slow requests in bursts; in a pause that is at its limit, about half of the requests are over it."""

    def paused(every: float, length: int, regular: float = 1.0) -> Draw:
        return functools.partial(pauses, every=every, length=length, regular=regular)

    def bursty(burst: int, quiet: int, faster: float, spread: float = 0.0) -> Draw:
        return functools.partial(bursty_queue, burst=burst, quiet=quiet, faster=faster, spread=spread)

    draws = {
        "pauses, 2 slow": (paused(190, 4), 1),
        "pauses, 5 slow": (paused(476, 10), 1),
        "pauses, 5 slow, irregular": (paused(476, 10, 0.8), 1),
        "pairs at random": (paused(190, 4, 0.0), 1),
        "pausing queue": (functools.partial(stopped_queue, every=400, length=8), 1),
        "bursts of 3 in a queue": (bursty(3, 60, 20.0), 1),
        "bursts of 5 in a queue": (bursty(5, 100, 10.0), 1),
        "bursts of 8 in a queue": (bursty(8, 80, 10.0, 0.3), 1),
        "pauses, 20 slow, 2,000 at least": (paused(1900, 40), 2000),
        "bursts of 6 at random, 2,000 at least": (paused(570, 12, 0.0), 2000),
    }
    for name, (draw, least) in draws.items():
        yield from latency_rows(name, draw, least=least, longest=20_000, only=only)


def error_rows() -> Iterator[Row]:
    limit = 0.001
    for truth, rate in (
        ("just worse", 0.00105),
        ("just better", 0.00095),
        ("clearly better", 0.0),
        ("clearly worse", 0.005),
    ):
        draw = functools.partial(_flags, rate=rate)
        yield Row(
            name="error rate",
            truth=truth,
            good=rate <= limit,
            draw=draw,
            sample=lambda x: Events(tuple(x.tolist())),
            threshold=threshold("<=", limit, Dimension.PROPORTION),
            budget=20_000,
            best=wald(divergence(rate, limit)),
            slow=functools.partial(np.equal, True),
            share=limit,
        )


def _flags(random: np.random.Generator, gates: int, n: int, rate: float) -> np.ndarray:
    return random.random((gates, n)) < rate


def _blocks(
    random: np.random.Generator, gates: int, n: int, mean: float, spread: float, correlation: float
) -> np.ndarray:
    return mean + spread * normal(random, gates, n, correlation)


def throughput_rows(correlation: float = 0.0) -> Iterator[Row]:
    limit, spread = 500.0, 100.0
    time = (1 + correlation) / (1 - correlation)
    for truth, mean in (
        ("just worse", 495.0),
        ("just better", 505.0),
        ("clearly better", 550.0),
        ("clearly worse", 450.0),
    ):
        draw = functools.partial(_blocks, mean=mean, spread=spread, correlation=correlation)
        yield Row(
            name="throughput" + (" dependent" if correlation else ""),
            truth=truth,
            good=mean >= limit,
            draw=draw,
            sample=lambda x: Blocks(tuple(x.tolist())),
            threshold=threshold(">=", limit, Dimension.RATE),
            budget=400,
            best=wald(((mean - limit) / spread) ** 2 / 2),
            time=time,
        )


def speedup_rows(correlation: float = 0.0) -> Iterator[Row]:
    limit, spread = 1.2, 0.1
    time = (1 + correlation) / (1 - correlation)
    for truth, ratio in (
        ("just worse", 1.19),
        ("just better", 1.21),
        ("clearly better", 1.26),
        ("clearly worse", 1.14),
    ):
        draw = functools.partial(_blocks, mean=math.log(ratio), spread=spread, correlation=correlation)
        yield Row(
            name="speed-up" + (" dependent" if correlation else ""),
            truth=truth,
            good=ratio >= limit,
            draw=draw,
            sample=lambda x: Ratios(tuple(np.exp(x).tolist())),
            threshold=threshold(">=", limit, Dimension.MULTIPLE),
            budget=400,
            best=wald((math.log(ratio / limit) / spread) ** 2 / 2),
            time=time,
        )


def _rounds(random: np.random.Generator, gates: int, n: int, ratio: float, spread: float) -> np.ndarray:
    """Draw rounds of two models on a machine that drifts: ``[gates, rounds, model, request]``.

    The p99 of the first is ``ratio`` times the second's; the logarithms of its latencies have the deviation ``spread``,
    those of the second 0.5.
    """
    drift = 0.2 * normal(random, gates, n, 0.9)[:, :, None]
    drawn = random.standard_normal((2, gates, n, 200))
    tail = special.ndtri(0.99)
    first = ratio * np.exp(spread * (drawn[0] - tail) + drift)
    return np.stack([first, np.exp(0.5 * (drawn[1] - tail) + drift)], axis=2)


def _ratio_of_p99(rounds: np.ndarray) -> Sample:
    size = rounds.shape[2]
    sides = (tuple(rounds[:, side].ravel().tolist()) for side in (0, 1))
    return ratio_of(*(Quantile(0.99, side, (size,) * len(rounds)) for side in sides))


def ratio_rows(spread: float = 0.5) -> Iterator[Row]:
    limit, rounds = 1.1, 60
    for truth, ratio in (
        ("just worse", 1.11),
        ("just better", 1.09),
        ("clearly better", 0.95),
        ("clearly worse", 1.3),
    ):
        yield Row(
            name="p99 of baseline" + (", longer tail" if spread > 0.5 else ""),
            truth=truth,
            good=ratio <= limit,
            draw=functools.partial(_rounds, ratio=ratio, spread=spread),
            sample=_ratio_of_p99,
            threshold=threshold("<=", limit, Dimension.PROPORTION),
            budget=rounds,
            best=None,
            alone=True,
        )


def accuracy_rows(n: int = 2000) -> Iterator[Row]:
    for truth, share in (
        ("just worse", 0.969),
        ("just better", 0.971),
        ("clearly better", 0.99),
        ("clearly worse", 0.95),
    ):
        yield Row(
            name="accuracy",
            truth=truth,
            good=share >= 0.97,
            draw=functools.partial(_flags, rate=share),
            sample=lambda x: Proportion(int(x.sum()), len(x)),
            threshold=threshold(">=", 0.97, Dimension.PROPORTION),
            budget=n,
            best=None,
            fixed=True,
        )


def _pairs(random: np.random.Generator, gates: int, n: int, lost: float, gained: float) -> np.ndarray:
    drawn = random.random((gates, n))
    return np.where(drawn < lost, 1, 0) - np.where(drawn > 1 - gained, 1, 0)


def drop_rows(n: int = 2000) -> Iterator[Row]:
    for truth, drop in (
        ("just worse", 0.0105),
        ("just better", 0.0095),
        ("clearly better", 0.0),
        ("clearly worse", 0.03),
    ):
        yield Row(
            name="paired drop",
            truth=truth,
            good=drop <= 0.01,
            draw=functools.partial(_pairs, lost=0.005 + drop, gained=0.005),
            sample=lambda x: Paired(int((x > 0).sum()), int((x < 0).sum()), len(x)),
            threshold=threshold("<=", 0.01, Dimension.DIFFERENCE),
            budget=n,
            best=None,
            fixed=True,
        )


def rows(only: str = "") -> Iterator[Row]:
    """Yield the rows whose name contains ``only``; no long streams are drawn for the others."""
    yield from (row for row in _all_rows(only) if only in row.name)


def _all_rows(only: str) -> Iterator[Row]:
    yield from accuracy_rows()
    yield from drop_rows()
    yield from latency_rows("log-normal", log_normal, only=only)
    yield from latency_rows("bimodal", bimodal, only=only)
    yield from latency_rows("autocorrelated", functools.partial(log_normal, correlation=0.5), only=only)
    yield from latency_rows("queue", queue, budget=10_000, only=only)
    yield from latency_rows("queue", queue, budget=5000, probability=0.9, only=only)
    yield from latency_rows("queue", queue, budget=5000, probability=0.5, only=only)
    yield from burst_rows(only)
    yield from error_rows()
    yield from throughput_rows()
    yield from throughput_rows(correlation=0.4)
    yield from speedup_rows()
    yield from speedup_rows(correlation=0.4)
    yield from ratio_rows()
    yield from ratio_rows(spread=0.8)
