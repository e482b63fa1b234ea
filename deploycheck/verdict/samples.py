"""What a metric observed, in the form its verdict is decided from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Exact:
    """A quantity known without error: a size, a count, a digest comparison."""

    value: float


@dataclass(frozen=True)
class Proportion:
    """``successes`` of ``total`` independent trials, read on the scale ``offset + scale * share``.

    The scale lets a linear function of a proportion (the share of the gap over a majority guess that was
    closed, say) keep the proportion's exact interval. ``scale`` must be positive.
    """

    successes: int
    total: int
    offset: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True)
class Paired:
    """Two models on the same examples: ``lost`` only the first got right, ``gained`` only the second.

    Its value is the drop from the first to the second, ``(lost - gained) / total``.
    """

    lost: int
    gained: int
    total: int


@dataclass(frozen=True)
class Quantile:
    """A fixed sample of a stream, and which of its quantiles is meant.

    ``values`` may hold ``inf``: a request that never came back is slower than any limit.
    """

    probability: float
    values: tuple[float, ...]


@dataclass(frozen=True)
class Blocks:
    """Means over consecutive blocks of a stream, long enough to be nearly independent."""

    means: tuple[float, ...]


@dataclass(frozen=True)
class WorstOf:
    """The same proportion in every slice; the lowest is the one that counts."""

    slices: Mapping[str, Proportion]


Sample = Exact | Proportion | Paired | Quantile | Blocks | WorstOf


@dataclass(frozen=True)
class Measurement:
    """A sample with how it was taken.

    ``note`` is a remark for the report (which slice was worst, which curve was flat). ``invalid`` says why
    nothing may be concluded from the sample, where that is so; ``doubt`` why a failure could be the measuring's
    own fault, where a pass would stand all the same.
    """

    sample: Sample
    note: str = ""
    invalid: str = ""
    doubt: str = ""


def quantile(values: tuple[float, ...], probability: float) -> float:
    """Return the smallest value that at least ``probability`` of ``values`` do not exceed; nan when empty."""
    if not values:
        return math.nan
    ranked = sorted(values)
    return ranked[max(0, math.ceil(probability * len(ranked) - 1e-9) - 1)]


def value_of(sample: Sample) -> float:
    """Return the point value, in the metric's base unit; nan where there is nothing to read it from."""
    match sample:
        case Exact(value):
            return value
        case Proportion(successes, total, offset, scale):
            return offset + scale * successes / total if total else math.nan
        case Paired(lost, gained, total):
            return (lost - gained) / total if total else math.nan
        case Quantile(probability, values):
            return quantile(values, probability)
        case Blocks(means):
            return math.fsum(means) / len(means) if means else math.nan
        case WorstOf(slices):
            return min((value_of(part) for part in slices.values()), default=math.nan)


def sample_size(sample: Sample) -> int:
    """Return how many observations the sample holds (blocks for a blocked mean, examples over all slices)."""
    match sample:
        case Exact():
            return 1
        case Proportion(_, total) | Paired(_, _, total):
            return total
        case Quantile(_, values):
            return len(values)
        case Blocks(means):
            return len(means)
        case WorstOf(slices):
            return sum(part.total for part in slices.values())
