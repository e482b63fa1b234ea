"""Bounds on any statistic of a fixed test set, by resampling it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from deploycheck.verdict.samples import Resampled

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 2000
GROUPS = 200
SEED = 0
FEWEST_DEFINED = 0.95
"""The share of resamples that must define the statistic."""


def resampled_bounds(sample: Resampled, confidence: float) -> tuple[float, float]:
    """Return one-sided bounds by the bootstrap, corrected for bias and acceleration (BCa).

    Efron, Better Bootstrap Confidence Intervals, Journal of the American Statistical Association 82, 1987, with the
    acceleration from a jackknife over groups of examples. The resamples are the same in every run. Infinite where
    they all agree (a perfect score, say): resampling then knows nothing of what it hasn't seen.
    """
    import numpy as np
    from scipy import special

    random = np.random.default_rng(SEED)
    drawn = (random.integers(0, sample.size, sample.size) for _ in range(RESAMPLES if sample.size else 0))
    found = np.array([sample.statistic(rows) for rows in drawn])
    found = np.sort(found[np.isfinite(found)])
    value = sample.statistic(np.arange(sample.size))
    if len(found) < FEWEST_DEFINED * RESAMPLES or found[0] == found[-1] or not math.isfinite(value):
        return -math.inf, math.inf
    below = (np.searchsorted(found, value) + np.searchsorted(found, value, side="right")) / 2 / len(found)
    bias = special.ndtri(np.clip(below, 1 / len(found), 1 - 1 / len(found)))
    acceleration = _acceleration(sample, random)

    def bound(level: float) -> float:
        shifted = bias + special.ndtri(level)
        return float(np.quantile(found, special.ndtr(bias + shifted / (1 - acceleration * shifted))))

    return bound(1 - confidence), bound(confidence)


def _acceleration(sample: Resampled, random: np.random.Generator) -> float:
    import numpy as np

    groups = np.array_split(random.permutation(sample.size), min(sample.size, GROUPS))
    everything = np.arange(sample.size)
    left_out = np.array([sample.statistic(np.delete(everything, group)) for group in groups])
    left_out = left_out[np.isfinite(left_out)]
    apart = left_out.mean() - left_out if len(left_out) else left_out
    spread = float((apart**2).sum())
    return float((apart**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
