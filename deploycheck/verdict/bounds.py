"""One-sided confidence bounds for each kind of sample.

Each of the two bounds holds by itself with the stated confidence: a threshold is judged against one of them,
so a pass and a fail are each wrong at most ``1 - confidence`` of the time. Bounds of streams hold at any time, so
that a load test may stop as soon as its verdict is certain.
"""

from __future__ import annotations

import math

from deploycheck.lazy import np
from deploycheck.verdict.resample import resampled_bounds
from deploycheck.verdict.samples import (
    Blocks,
    Events,
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
    Sample,
    WorstOf,
    sample_size,
    undisturbed,
    value_of,
)
from deploycheck.verdict.sequential import mean_bounds, quantile_bounds, rate_bounds, rounds_bounds

POINTS = 512
"""Points at which one of two confidence distributions is evaluated."""
SHARE_OF_DROP = 0.9
"""Of the error of a relative drop, the drop's share; the accuracy that it is relative to has the rest."""
FEWEST_REPEATS = 3
"""Fewer repetitions bound nothing."""


def bounds(sample: Sample, confidence: float) -> tuple[float, float]:
    """Return the lower and the upper bound, each one-sided at ``confidence`` (a fraction in 0..1).

    A side of which nothing is known is infinite, or the end of the scale where the sample has one. Of a stream that was
    partly disturbed, the bound on the slow side is that of all of it, the bound on the fast side that of the
    undisturbed part: a disturbance only slows, so it can't make a model pass, and may not make it fail.
    """
    quiet = undisturbed(sample)
    if quiet is not sample:
        return _join(sample, _bounds(quiet, confidence), _bounds(sample, confidence))
    return _bounds(sample, confidence)


def point_bounds(sample: Sample) -> tuple[float, float]:
    """Return a sample's value as both bounds.

    Where a stream was partly disturbed, these are its values without and with that part. Of several slices, one that is
    too small or undefined bounds nothing.
    """
    if isinstance(sample, WorstOf):
        return _point_bounds_of_worst(sample)
    value, quiet = value_of(sample), undisturbed(sample)
    if quiet is sample:
        return value, value
    of_quiet = (value_of(quiet),) * 2 if sample_size(quiet) else (-math.inf, math.inf)
    return _join(sample, of_quiet, (value, value))


def _point_bounds_of_worst(sample: WorstOf) -> tuple[float, float]:
    parts = [
        (-math.inf, math.inf) if not _is_large(part, sample) or math.isnan(value_of(part)) else point_bounds(part)
        for part in sample.slices.values()
    ]
    worst = min if sample.lowest else max
    lows, highs = zip(*parts, strict=True) if parts else ((math.nan,), (math.nan,))
    return worst(lows), worst(highs)


def _join(sample: Sample, quiet: tuple[float, float], everything: tuple[float, float]) -> tuple[float, float]:
    """Return the fast side of ``quiet`` with the slow side of ``everything``.

    Where these two contradict each other, all between them is possible: the disturbances didn't slow.
    """
    low, high = (everything[0], quiet[1]) if isinstance(sample, Blocks) else (quiet[0], everything[1])
    return min(low, high), max(low, high)


def _bounds(sample: Sample, confidence: float) -> tuple[float, float]:
    match sample:
        case Exact(value):
            return value, value
        case Proportion(successes, total, offset=offset, scale=scale):
            low, high = _clopper_pearson(successes, total, confidence)
            return offset + scale * low, offset + scale * high
        case Paired(lost, gained, total):
            return _bound_drop(lost, gained, total, confidence)
        case Retained(pairs):
            return _bound_retained(pairs, confidence)
        case RelativeDrop(pairs):
            low, high = _bound_retained(pairs, confidence)
            return 1 - high, 1 - low
        case Resampled():
            return resampled_bounds(sample, confidence)
        case Quantile(probability, values):
            return quantile_bounds(values, probability, confidence)
        case Events(happened):
            return rate_bounds(happened, confidence)
        case Blocks(means):
            return mean_bounds(means, confidence)
        case Ratios(rounds):
            low, high = rounds_bounds(tuple(map(math.log, rounds)), confidence)
            return math.exp(low), math.exp(high) if high < math.inf else math.inf
        case Quotient(over, under):
            return _bound_quotient(over, under, confidence)
        case Repeats(values):
            return _bound_mean(values, confidence)
        case WorstOf():
            return _bound_worst(sample, confidence)


def _clopper_pearson(successes: int, total: int, confidence: float) -> tuple[float, float]:
    """Exact binomial bounds (Clopper and Pearson, Biometrika 26, 1934)."""
    from scipy import special

    if not 0 <= successes <= total:
        raise ValueError(f"{successes} successes of {total}")
    low = special.betaincinv(successes, total - successes + 1, 1 - confidence) if successes else 0.0
    high = special.betaincinv(successes + 1, total - successes, confidence) if successes < total else 1.0
    return float(low), float(high)


def _bound_drop(lost: int, gained: int, total: int, confidence: float) -> tuple[float, float]:
    """Bounds on a difference of paired proportions, melded from those on the two discordant shares.

    ``lost`` of all and ``gained`` of the rest are two independent binomials. The upper bound is a quantile of the
    drop when the one share is drawn as Clopper and Pearson's upper bound is distributed over all confidences, and
    the other as their lower bound (Fay, Proschan and Brittain, Biometrics 71, 2015; for pairs, Fay and Lumbard,
    Statistics in Medicine 40, 2021). Examples on which both agree add no variance, so the bounds are far tighter than
    those of an unpaired comparison.
    """
    return -_most_lost(gained, lost, total, confidence), _most_lost(lost, gained, total, confidence)


def _most_lost(lost: int, gained: int, total: int, confidence: float) -> float:
    """Return the upper bound on the drop."""
    from scipy import special

    if not total:
        return math.inf
    levels = (np.arange(POINTS) + 0.5) / POINTS
    least = special.betaincinv(gained, total - lost - gained + 1, levels) if gained else np.zeros(1)

    def is_certain(drop: float) -> bool:
        most = np.clip((drop + least) / (1 + least), 0.0, 1.0)  # drop = lost - gained' * (1 - lost)
        below = special.betainc(lost + 1, total - lost, most) if lost < total else (most >= 1).astype(float)
        return float(below.mean()) >= confidence

    inside, outside = -1.0, 1.0
    for _ in range(40):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if is_certain(middle) else (middle, outside)
    return outside


def _bound_retained(pairs: Paired, confidence: float) -> tuple[float, float]:
    """Bounds on ``1 - drop / accuracy``, from bounds on the two, which share the error (Bonferroni)."""
    error = 1 - confidence
    least, most = _bound_drop(pairs.lost, pairs.gained, pairs.total, 1 - SHARE_OF_DROP * error)
    accuracy = _clopper_pearson(pairs.right, pairs.total, 1 - (1 - SHARE_OF_DROP) * error)
    if accuracy[0] <= 0:
        return -math.inf, math.inf
    return 1 - most / accuracy[most < 0], 1 - least / accuracy[least > 0]


def _bound_quotient(over: Sample, under: Sample, confidence: float) -> tuple[float, float]:
    """Bounds on a ratio of two positive quantities, each given half of the error (Bonferroni)."""
    half = (1 + confidence) / 2
    (over_low, over_high), (under_low, under_high) = bounds(over, half), bounds(under, half)
    low = max(over_low, 0.0) / under_high if under_high > 0 else -math.inf
    high = over_high / under_low if under_low > 0 else math.inf
    return low, high


def _bound_mean(values: tuple[float, ...], confidence: float) -> tuple[float, float]:
    """Bounds on the mean of independent repetitions, as many as were planned, by Student's t."""
    from scipy import special

    n = len(values)
    if n < FEWEST_REPEATS:
        return -math.inf, math.inf
    centre = math.fsum(values) / n
    variance = math.fsum((value - centre) ** 2 for value in values) / (n - 1)
    reach = float(special.stdtrit(n - 1, confidence)) * math.sqrt(variance / n)
    return centre - reach, centre + reach


def _bound_worst(sample: WorstOf, confidence: float) -> tuple[float, float]:
    """Bounds on the worst of several.

    A check passes where every slice meets its limit, so the bound on the good side needs no correction
    (intersection-union). Any one slice can fail it, so the bound on the bad side is corrected for their number
    (Bonferroni). A slice that is too small bounds nothing.
    """
    parts = tuple(sample.slices.values())
    if not parts:
        return -math.inf, math.inf
    corrected = 1 - (1 - confidence) / len(parts)
    plain = [bounds(part, confidence) if _is_large(part, sample) else (-math.inf, math.inf) for part in parts]
    strict = [bounds(part, corrected) if _is_large(part, sample) else (-math.inf, math.inf) for part in parts]
    if sample.lowest:
        return min(low for low, _ in plain), min(high for _, high in strict)
    return max(low for low, _ in strict), max(high for _, high in plain)


def _is_large(part: Sample, sample: WorstOf) -> bool:
    return sample_size(part) >= sample.at_least
