"""Bounds on any statistic of a fixed test set, by resampling it."""

from __future__ import annotations

import functools
import math

from deploycheck.lazy import np
from deploycheck.verdict.samples import Resampled

FEWEST_RESAMPLES, BEYOND_BOUND, MOST_RESAMPLES = 2000, 20, 10_000
"""As many are drawn as put about ``BEYOND_BOUND`` of them beyond a bound, within the other two."""
GROUPS = 200
"""Of examples, each left out once by the jackknife."""
SEED = 0
FEWEST_DEFINED = 0.95
"""The share of resamples that must define the statistic."""
BIASED = 0.25
"""The correction for bias, in standard deviations, above which resampling itself is known to move a statistic."""


def resampled_bounds(sample: Resampled, confidence: float) -> tuple[float, float]:
    """Return one-sided bounds by the bootstrap, corrected for bias and acceleration (BCa).

    Efron, Better Bootstrap Confidence Intervals, Journal of the American Statistical Association 82, 1987, with the
    acceleration from a jackknife over groups of examples. The resamples are the same in every run. The bounds are the
    ends of the statistic's scale where all resamples agree (a perfect score, say): they then show nothing of what the
    examples don't hold.

    Some statistics are themselves biased, such as a calibration error, which any resampling makes larger. BCa then
    corrects too far, so the bounds are at least as wide as the percentile and the basic bootstrap's. Both kinds are too
    narrow on few examples, by as much as a normal interval is: they are widened to Student's t.
    """
    low, high = _unclipped_bounds(sample, confidence)
    return max(low, sample.lowest), min(high, sample.highest)


def _unclipped_bounds(sample: Resampled, confidence: float) -> tuple[float, float]:
    from scipy import special

    found = _resample(sample, confidence)
    drawn, found = len(found), np.sort(found[np.isfinite(found)])
    if len(found) < max(1, FEWEST_DEFINED * drawn) or found[0] == found[-1]:
        return -math.inf, math.inf
    value = sample.statistic(np.arange(sample.size))
    if not math.isfinite(value):
        return -math.inf, math.inf
    below = (np.searchsorted(found, value) + np.searchsorted(found, value, side="right")) / 2 / len(found)
    bias = float(special.ndtri(np.clip(below, 1 / len(found), 1 - 1 / len(found))))
    acceleration = _acceleration(sample)

    def bound(level: float) -> float:
        shifted = bias + special.ndtri(level)
        return float(np.quantile(found, special.ndtr(bias + shifted / (1 - acceleration * shifted))))

    low, high = bound(1 - confidence), bound(confidence)
    if abs(bias) > BIASED:
        least, most = (float(np.quantile(found, level)) for level in (1 - confidence, confidence))
        low, high = min(low, least, 2 * value - most), max(high, most, 2 * value - least)
    wider = math.sqrt(sample.size / (sample.size - 1))
    if confidence > 0.5:
        wider *= float(special.stdtrit(sample.size - 1, confidence) / special.ndtri(confidence))
    return value - wider * (value - low), value + wider * (high - value)


def why_unbounded(sample: Resampled, confidence: float) -> str:
    """Return why resampling bounds nothing; empty where it does."""
    found = _resample(sample, confidence)
    undefined = int((~np.isfinite(found)).sum())
    if undefined > (1 - FEWEST_DEFINED) * len(found):
        return f"it is not a number on {undefined:,} of {len(found):,} resamples of the examples, which bounds nothing"
    if not len(found):
        return f"{sample.size} example{'' if sample.size == 1 else 's'} can't be resampled: more are needed"
    if np.ptp(found[np.isfinite(found)]) == 0:
        return "every resample of the examples scores the same, which bounds nothing: more that differ are needed"
    return ""


def _resample(sample: Resampled, confidence: float) -> np.ndarray:
    """Return the statistic of as many resamples as a confidence takes; of none, where there is but one example."""
    count = min(MOST_RESAMPLES, max(FEWEST_RESAMPLES, math.ceil(BEYOND_BOUND / (1 - confidence))))
    return _draw(sample, count if sample.size > 1 else 0)


@functools.lru_cache(maxsize=16)
def _draw(sample: Resampled, count: int) -> np.ndarray:
    """Return the statistic of ``count`` resamples of the examples; kept, because several functions use the same."""
    random, n = np.random.default_rng(SEED), sample.size
    return np.array([sample.statistic(random.integers(0, n, n)) for _ in range(count)], dtype=float)


def _acceleration(sample: Resampled) -> float:
    groups = np.array_split(np.random.default_rng(SEED).permutation(sample.size), min(sample.size, GROUPS))
    everything = np.arange(sample.size)
    left_out = np.array([sample.statistic(np.delete(everything, group)) for group in groups])
    left_out = left_out[np.isfinite(left_out)]
    centred = left_out.mean() - left_out if len(left_out) else left_out
    squares = float((centred**2).sum())
    return float((centred**3).sum()) / (6 * squares**1.5) if squares > 0 else 0.0
