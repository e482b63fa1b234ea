"""One-sided confidence bounds for each kind of sample.

Each of the two bounds holds by itself with the stated confidence: a threshold is judged against one of them,
so a pass and a fail are each wrong at most ``1 - confidence`` of the time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from deploycheck.verdict.samples import Blocks, Exact, Paired, Proportion, Quantile, Sample, WorstOf, value_of

MOST_EXAMPLES = 100_000_000
"""Past this many further examples the answer is 'more than anyone has'."""


def bounds(sample: Sample, confidence: float) -> tuple[float, float]:
    """Return the lower and the upper bound, each one-sided at ``confidence`` (a fraction in 0..1).

    A side that nothing is known about is infinite (or the end of the scale for a proportion).
    """
    match sample:
        case Exact(value):
            return value, value
        case Proportion(successes, total, offset, scale):
            low, high = _clopper_pearson(successes, total, confidence)
            return offset + scale * low, offset + scale * high
        case Paired(lost, gained, total):
            return _paired(lost, gained, total, confidence)
        case Quantile(probability, values):
            return _order_statistics(values, probability, confidence)
        case Blocks(means):
            return _batch_means(means, confidence)
        case WorstOf(slices):
            return _worst(slices, confidence)


def _clopper_pearson(successes: int, total: int, confidence: float) -> tuple[float, float]:
    """Exact binomial bounds (Clopper and Pearson, Biometrika 26, 1934)."""
    from scipy import special  # here: a run that only collects decides nothing

    if not 0 <= successes <= total:
        raise ValueError(f"{successes} successes of {total}")
    low = special.betaincinv(successes, total - successes + 1, 1 - confidence) if successes else 0.0
    high = special.betaincinv(successes + 1, total - successes, confidence) if successes < total else 1.0
    return float(low), float(high)


def _paired(lost: int, gained: int, total: int, confidence: float) -> tuple[float, float]:
    """Bounds on a difference of paired proportions.

    Exact bounds on the two discordant shares, each given half of the error (Bonferroni): conservative, and
    far tighter than an unpaired comparison, because examples on which both agree carry no variance.
    """
    half = 1 - (1 - confidence) / 2
    lost_low, lost_high = _clopper_pearson(lost, total, half)
    gained_low, gained_high = _clopper_pearson(gained, total, half)
    return lost_low - gained_high, lost_high - gained_low


def _order_statistics(values: tuple[float, ...], probability: float, confidence: float) -> tuple[float, float]:
    """Distribution-free bounds on a quantile (David and Nagaraja, Order Statistics, 2003, section 7.1).

    The upper bound is the smallest observation with ``P[Binomial(n, p) < rank] >= confidence``; with fewer
    than ``log(1 - confidence) / log(p)`` observations (299 for p99 at 95 %) there is none, hence infinity.
    """
    ranked = sorted(values)
    n = len(ranked)
    if n == 0:
        return -math.inf, math.inf
    upper_rank = _binomial_quantile(confidence, n, probability) + 1
    lower_rank = _binomial_quantile(1 - confidence, n, probability)
    low = ranked[lower_rank - 1] if lower_rank >= 1 else -math.inf
    high = ranked[upper_rank - 1] if upper_rank <= n else math.inf
    return low, high


def _binomial_quantile(level: float, n: int, probability: float) -> int:
    """Return the smallest k with ``P[Binomial(n, probability) <= k] >= level``."""
    from scipy import special

    low, high = -1, n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if special.bdtr(middle, n, probability) >= level else (middle, high)
    return high


def _batch_means(means: tuple[float, ...], confidence: float) -> tuple[float, float]:
    """Student's t over block means (Law, Simulation Modeling and Analysis, 2015, section 9.5.3)."""
    from scipy import special

    n = len(means)
    if n < 2:
        return -math.inf, math.inf
    centre = math.fsum(means) / n
    variance = math.fsum((mean - centre) ** 2 for mean in means) / (n - 1)
    reach = float(special.stdtrit(n - 1, confidence)) * math.sqrt(variance / n)
    return centre - reach, centre + reach


def _worst(slices: Mapping[str, Proportion], confidence: float) -> tuple[float, float]:
    """Bounds on the lowest of several proportions.

    All slices must clear a floor, so the lower bound needs no correction (intersection-union); any slice may
    sink it, so the upper bound is corrected for how many there are (Bonferroni).
    """
    parts = tuple(slices.values())
    if not parts:
        return -math.inf, math.inf
    corrected = 1 - (1 - confidence) / len(parts)
    low = min(bounds(part, confidence)[0] for part in parts)
    high = min(bounds(part, corrected)[1] for part in parts)
    return low, high


def examples_to_decide(sample: Sample, limit: float, confidence: float) -> int | None:
    """Return about how many observations more would settle the sample against ``limit``.

    It assumes that what comes is like what came. None where the kind has no such answer, where the value sits
    on the limit, or where it would take more than ``MOST_EXAMPLES``.
    """
    if not isinstance(sample, Proportion | Paired) or not sample.total or value_of(sample) == limit:
        return None

    def settled(n: int) -> bool:
        low, high = bounds(_grown(sample, n), confidence)
        return low > limit or high < limit

    enough = sample.total
    while not settled(enough):
        enough *= 2
        if enough > MOST_EXAMPLES:
            return None
    short = enough // 2
    while enough - short > max(1, enough // 100):
        middle = (short + enough) // 2
        short, enough = (short, middle) if settled(middle) else (middle, enough)
    return max(0, enough - sample.total)


def _grown(sample: Proportion | Paired, n: int) -> Proportion | Paired:
    """Return the sample as it would look with ``n`` observations of the same shares."""
    if isinstance(sample, Proportion):
        successes = round(sample.successes / sample.total * n)
        return Proportion(successes, n, sample.offset, sample.scale)
    return Paired(round(sample.lost / sample.total * n), round(sample.gained / sample.total * n), n)
