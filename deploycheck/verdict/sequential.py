"""Tests of a stream that may be made after every observation, and stopped as soon as they are certain.

The test of a proportion is an e-process: the likelihood of what was seen under a mixture of better (or worse)
proportions, over its likelihood at the limit. Were the limit met exactly, it would reach ``1 / (1 - confidence)``
at any time, ever, with a probability of at most ``1 - confidence`` (Ville's inequality; Robbins, Annals of
Mathematical Statistics 41, 1970; Ramdas, Grünwald, Vovk and Shafer, Statistical Science 38, 2023).

This holds for independent observations. Observations of a stream seldom are: a queue makes neighbours slow together.
Of ``n`` observations with an autocorrelation time ``t``, every ``t``-th is nearly independent of the others. The
likelihood ratio to the power ``1 / t`` is at most the mean of the ratios of the ``t`` thinned streams (the inequality
of the geometric and the arithmetic mean), which is an e-value. So the counts are divided by ``t``, which is measured
on the stream itself, on the cautious side. A stall that is too rare to happen during the load can't be measured.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterator

from deploycheck.lazy import np

WINDOW = 5
"""Lags are summed up to this many autocorrelation times (Sokal, Monte Carlo Methods, 1997, section 3)."""
CAUTION = 1.3
"""Standard errors that are added to the autocorrelation time of values that depend on each other."""
SHORTEST = 20
"""Fewer observations don't show how they depend on each other."""
TAIL, ENOUGH_IN_TAIL, CLOSEST = 0.1, 200, 4
"""The dependence of a high quantile is measured on the slowest ``TAIL`` of the stream, to see enough of them.

Of a longer stream, it is measured on a smaller share that still has ``ENOUGH_IN_TAIL`` observations, and is at least
``CLOSEST`` times the share beyond the quantile.
"""
WIDER = 2.5
"""It is measured on a share this many times as large too, which shows its trend towards the slowest."""
LEAST_TREND, MOST_TREND = 0.5, 1.6
"""The limits of that trend, a factor."""
CONTINUED, CONTINUED_TO_PASS = 0.5, 2.0
"""How much of the trend is continued towards the slowest; a pass is more cautious where dependence becomes stronger."""
REACH = 10
"""The trend is continued to a share this many times smaller at most."""
SIGNIFICANT = 2.0
"""A correlation of neighbours in the tail within this many standard errors of 0 is taken for chance."""
BURST = 2
"""A quantile can't pass before bursts of this many slow requests, at random times, would have been seen."""
LEAST_TO_FAIL, LEAST_TO_PASS, LEAST_IN_TAIL = 30, 60, 20
"""A stream must last for this many autocorrelation times before a test of it may fail, or pass.

No test passes before this many independent observations of the tail in which they are measured: the fewer there are,
the more likely it is that the cause of slow requests hasn't happened yet.
"""
FEWEST_EVENTS = 2
"""One slow request decides nothing."""
FEWEST_BLOCKS, FEWEST_ROUNDS = 25, 7
"""Fewer blocks or rounds decide nothing."""
TIME_OF_FEW_ROUNDS = 2.0
"""The autocorrelation time that is assumed of rounds while there are too few to measure it."""
SPREADS = {0.5: 0.95, 4.0: 0.05}
"""The spread of each prior on a mean's distance from the limit, in standard deviations of a block: its error's share.

The wide prior decides a mean that is far from its limit from a few independent blocks, which the other can't.
"""
SHARE_OF_PRODUCT = 0.05
"""Of the error of a lower bound on a mean, the share of the product of the blocks; the t-test has the rest."""


def evidence_below(events: float, total: float, limit: float) -> float:
    """Return the logarithm of the evidence that events are rarer than ``limit`` (0..1).

    The mixture is Jeffreys' prior, Beta(1/2, 1/2), on proportions below the limit. Counts may be fractions.
    """
    return _evidence(events, total, limit, (0.5, 0.5), below=True)


def evidence_above(events: float, total: float, limit: float) -> float:
    """Return the logarithm of the evidence that events are more frequent than ``limit`` (0..1).

    The mixture is a Beta on proportions above the limit, most of it within ten times the limit: a model that is too
    slow twice as often as allowed matters as much as one that is 20 times.
    """
    return _evidence(events, total, limit, (0.25, max(0.5, 0.1 / limit) if limit else 0.5), below=False)


def _evidence(events: float, total: float, limit: float, prior: tuple[float, float], *, below: bool) -> float:
    from scipy import special

    if limit <= 0:
        return -math.inf if below or not events else math.inf
    if limit >= 1:
        return math.inf if below and events < total else -math.inf

    def mass(a: float, b: float) -> float:
        """Return the logarithm of the integral of a Beta's kernel on one side of the limit."""
        share = float(special.betainc(a, b, limit) if below else special.betaincc(a, b, limit))
        return float(special.betaln(a, b)) + math.log(share) if share > sys.float_info.min else -math.inf

    a, b = prior
    seen = events * math.log(limit) + (total - events) * math.log1p(-limit)
    return mass(events + a, total - events + b) - mass(a, b) - seen


def rate_bounds(happened: tuple[bool, ...], confidence: float) -> tuple[float, float]:
    """Return bounds on how often events happen, each one-sided and valid at any time."""
    n = len(happened)
    if not n:
        return 0.0, 1.0
    flags = np.asarray(happened, dtype=bool)
    thin = max(autocorrelation_time(flags.astype(float)), clustering(flags))
    events = int(flags.sum())
    high = _find_crossing(lambda limit: is_rarer(events, n, limit, confidence, thin), events / n, 1.0)
    low = _find_crossing(lambda limit: is_more_frequent(events, n, limit, confidence, thin), events / n, 0.0)
    return low, high


def _find_crossing(is_certain: Callable[[float], bool], inside: float, outside: float) -> float:
    """Return where a test becomes certain, between ``inside``, where it isn't, and ``outside``, where it is."""
    for _ in range(50):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if is_certain(middle) else (middle, outside)
    return outside


def quantile_bounds(values: tuple[float, ...], probability: float, confidence: float) -> tuple[float, float]:
    """Return bounds on a quantile of a stream, each one-sided and valid at any time.

    The bounds are observations. That ``probability`` of the stream is at or under a value is a proportion, and the
    upper bound is the smallest value for which it is certain. It is infinite for fewer observations than
    ``fewest_for_bursts``.
    """
    n = len(values)
    if not n:
        return -math.inf, math.inf
    stream = np.asarray(values, dtype=float)
    ranked = np.sort(stream)
    slow = 1 - probability
    to_pass, to_fail = times_in_tail(stream, slow)
    most = -1
    if n >= fewest_for_bursts(slow, confidence):
        most = _find_rank(
            to_pass, n - 1, lambda t: most_events(n, slow, confidence, t), lambda k: stream > ranked[n - k - 1]
        )
    fewest = _find_rank(to_fail, n, lambda t: fewest_events(n, slow, confidence, t), lambda k: stream >= ranked[n - k])
    high = float(ranked[n - most - 1]) if most >= 0 else math.inf
    low = float(ranked[n - fewest]) if fewest <= n else -math.inf
    return low, high


def fewest_for_bursts(slow: float, confidence: float) -> int:
    """Return the fewest observations that a pass needs, so that slow requests in bursts would have been seen.

    Before its first burst, a stream looks the same as one without bursts. If a share ``slow`` of the requests is in
    bursts of ``BURST`` at random times, ``n`` observations contain none with a probability of
    ``exp(-n * slow / BURST)``.
    """
    return math.ceil(-math.log(1 - confidence) * BURST / slow)


def times_in_tail(stream: np.ndarray, slow: float) -> tuple[float, float]:
    """Return the autocorrelation time of being among the slowest share ``slow``: for a pass, and for a failure.

    The slowest are too few to measure it on them. It is measured on more of the stream, and half of its trend towards
    the slowest is continued: in some streams the slowest come singly (those whose logarithms are normal), in a queue
    they come together more than others do. A failure has seen its slow requests; a pass hasn't seen the bursts that
    have yet to come. So for a pass, twice a rising trend is continued, of the time's excess over 1: chance in an
    independent stream isn't magnified.
    """
    n, ranked = len(stream), np.sort(stream)

    def time_of(share: float) -> float:
        in_tail = stream > ranked[min(n - 1, int(n * (1 - share)))]
        return autocorrelation_time(in_tail.astype(float), significant=SIGNIFICANT)

    tail = max(min(0.5, slow), min(TAIL, max(CLOSEST * slow, ENOUGH_IN_TAIL / n)), min(0.5, SHORTEST / n))
    time = time_of(tail)
    if tail <= slow or tail * WIDER > 0.5:
        return time, time
    trend = min(MOST_TREND, max(LEAST_TREND, time / time_of(tail * WIDER)))
    steps = math.log(min(REACH, tail / slow)) / math.log(WIDER)
    continued = max(1.0, time * math.pow(trend, CONTINUED * steps))
    return max(continued, 1.0 + (time - 1) * math.pow(trend, CONTINUED_TO_PASS * steps)), continued


def _find_rank(thin: float, total: int, rank: Callable[[float], int], exceed: Callable[[int], np.ndarray]) -> int:
    """Return a rank among ``total`` whose exceedances don't cluster more than the rank allows for."""
    found = rank(thin)
    while 1 <= found <= total and (seen := clustering(exceed(found))) > thin:
        thin = seen
        found = rank(thin)
    return found


def is_rarer(events: float, total: float, limit: float, confidence: float, thin: float) -> bool:
    """Whether events are certainly rarer than ``limit``, of observations with the autocorrelation time ``thin``."""
    if total < thin * max(LEAST_TO_PASS, LEAST_IN_TAIL / min(0.5, max(limit, TAIL))):
        return False
    return evidence_below(events / thin, total / thin, limit) >= -math.log(1 - confidence)


def is_more_frequent(events: float, total: float, limit: float, confidence: float, thin: float) -> bool:
    """Whether events are certainly more frequent than ``limit``.

    Whatever the dependence, the share of events seen ever exceeds ``k`` times the true share with a probability of at
    most ``1 / k`` (the maximal ergodic theorem: Hopf, 1954), so a few of them decide a model that is far too slow. That
    test has half of the error, on top of the other's.
    """
    if events >= FEWEST_EVENTS and events * (1 - confidence) / 2 > limit * total:
        return True
    if total < LEAST_TO_FAIL * thin:
        return False
    return evidence_above(events / thin, total / thin, limit) >= -math.log(1 - confidence)


@functools.lru_cache(maxsize=4096)
def most_events(total: int, limit: float, confidence: float, thin: float = 1.0) -> int:
    """Return the most events of ``total`` that are certainly rarer than ``limit``; -1 where not even 0 events are."""
    low, high = -1, max(0, math.ceil(total * limit))
    while high - low > 1:
        middle = (low + high) // 2
        is_enough = is_rarer(middle, total, limit, confidence, thin)
        low, high = (middle, high) if is_enough else (low, middle)
    return low


@functools.lru_cache(maxsize=4096)
def fewest_events(total: int, limit: float, confidence: float, thin: float = 1.0) -> int:
    """Return the fewest events of ``total`` that are certainly more frequent than ``limit``; more than all if none."""
    low, high = math.floor(total * limit), total + 1
    while high - low > 1:
        middle = (low + high) // 2
        is_enough = is_more_frequent(middle, total, limit, confidence, thin)
        low, high = (low, middle) if is_enough else (middle, high)
    return high


def autocorrelation_time(values: np.ndarray, caution: float = CAUTION, significant: float = 1.0) -> float:
    """Return how many consecutive values are worth one independent value: 1 for an independent stream.

    ``1 + 2 * sum(autocorrelations)`` up to a window of its own size. Where neighbours depend on each other by more than
    ``significant`` standard errors, it is corrected for the bias of estimating the mean from the stream itself (Wolff,
    Computer Physics Communications 156, 2004, equation 49), and ``caution`` of its standard errors are added (Madras
    and Sokal, Journal of Statistical Physics 50, 1988).
    """
    n = len(values)
    centred = values - values.mean() if n else values
    variance = float(centred @ centred)
    if n < SHORTEST or variance <= 0:
        return 1.0
    time, neighbours, lag = 1.0, 0.0, 0
    for lag in range(1, n // 4 + 1):
        correlation = float(centred[lag:] @ centred[:-lag]) / variance
        neighbours = correlation if lag == 1 else neighbours
        time += 2 * correlation
        if lag >= WINDOW * time:
            break
    if neighbours * math.sqrt(n) > significant:
        window = (2 * lag + 1) / n
        time *= (1 + window) * (1 + caution * math.sqrt(2 * window))
    return max(1.0, time)


def clustering(flags: np.ndarray) -> float:
    """Return how many times fewer runs of events there are than there would be of independent events; at least 1."""
    n, events = len(flags), int(flags.sum())
    if events < 2:
        return 1.0
    runs = int(flags[0]) + int((flags[1:] & ~flags[:-1]).sum())
    return max(1.0, events * (n - events + 1) / n / runs)


def mean_bounds(values: tuple[float, ...], confidence: float) -> tuple[float, float]:
    """Return bounds on the mean of a stream of blocks, none negative, each one-sided and valid at any time.

    As ``rounds_bounds``, for as many blocks as are independent given their autocorrelation; or the product of the
    blocks where that bound is higher. Infinite for fewer than ``FEWEST_BLOCKS``, which don't show the autocorrelation.
    """
    if len(values) < FEWEST_BLOCKS:
        return -math.inf, math.inf
    rates, error = np.asarray(values), 1 - confidence
    low, high = _mean_bounds(values, len(rates) / autocorrelation_time(rates), 1 - (1 - SHARE_OF_PRODUCT) * error)
    independent = len(rates) / autocorrelation_time(rates, caution=0.0)  # far from the limit none is needed
    return max(low, _product_bound(values, independent, SHARE_OF_PRODUCT * error)), high


def _product_bound(values: tuple[float, ...], independent: float, error: float) -> float:
    """Return a lower bound on the mean of values that are never negative, valid at any time for any distribution.

    The product of the blocks, each over the mean that is tested, is an e-process (Waudby-Smith and Ramdas, Estimating
    means of bounded random variables by betting, JRSS B 86, 2024). So the bound is their geometric mean, less what
    chance allows. It decides a mean of many times its limit while a drift leaves too few independent blocks for a
    t-test.
    """
    if min(values) <= 0:
        return 0.0
    return math.exp(math.fsum(map(math.log, values)) / len(values) + math.log(error) / independent)


def rounds_bounds(values: tuple[float, ...], confidence: float) -> tuple[float, float]:
    """Return bounds on the mean of nearly normal values, each one-sided and valid at any time.

    Student's t, with its likelihood ratio mixed over a normal prior on the distance from the limit in standard
    deviations (Lai, Annals of Statistics 4, 1976; Wang and Ramdas, Anytime-valid t-tests and confidence sequences,
    Sequential Analysis 44, 2025), for as many values as are independent given their autocorrelation. Infinite for
    fewer than ``FEWEST_ROUNDS``, which don't show rare events.
    """
    if len(values) < FEWEST_ROUNDS:
        return -math.inf, math.inf
    return _mean_bounds(values, len(values) / time_of_rounds(values), confidence)


def time_of_rounds(values: tuple[float, ...]) -> float:
    """Return the autocorrelation time of values of rounds: few things outlast a round, but few rounds can't show it."""
    return autocorrelation_time(np.asarray(values)) if len(values) >= SHORTEST else TIME_OF_FEW_ROUNDS


def _mean_bounds(values: tuple[float, ...], independent: float, confidence: float) -> tuple[float, float]:
    n = len(values)
    if n < 2:
        return -math.inf, math.inf
    centre = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (n - 1))
    reach = deviation * reach_in_deviations(independent, confidence)
    return centre - reach, centre + reach


def reach_in_deviations(n: float, confidence: float) -> float:
    """Return the half-width of ``mean_bounds`` after ``n`` independent blocks, in their standard deviation."""
    return min(_reach(n, share * (1 - confidence), spread) for spread, share in SPREADS.items())


def _reach(n: float, error: float, spread: float) -> float:
    if n <= 1:
        return math.inf
    gain = 1 + n * spread**2
    power = (math.sqrt(gain) / (2 * error)) ** (2 / n)
    if power >= gain:
        return math.inf
    return math.sqrt((power - 1) / (1 - power / gain) * (n - 1) / n)


def looks(most: int) -> Iterator[int]:
    """Yield after how many observations, of ``most``, to test: after each at first, then after every 5 % more."""
    n = 1
    while n < most:
        yield n
        n = max(n + 1, math.ceil(n * 1.05))
    yield most
