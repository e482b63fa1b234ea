"""What a metric observed, in the form that its verdict is decided from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TypeVar

from deploycheck.lazy import np

ANY_VALUE = (-math.inf, math.inf)
"""The ends of what a measurement could be, where nothing is known of them."""
T = TypeVar("T")
BEYOND = 4
"""Rounds are grouped until a group has this many values beyond the quantile at which two models are compared."""
LEAST_UNDISTURBED = 0.25
"""Where less than this share of a stream was undisturbed, the rest is only less disturbed: it fails no model."""


@dataclass(frozen=True)
class Exact:
    """A quantity known without error: a size, a count, a digest comparison."""

    value: float


@dataclass(frozen=True)
class Proportion:
    """``successes`` of ``total`` independent trials, read on the scale ``offset + scale * share``.

    The scale lets a linear function of a proportion (the share of the gap over a majority guess that was
    closed, say) keep the proportion's exact interval. ``scale`` must be positive. ``hits``, where it is known,
    says which trials succeeded (``[total]`` of bool): it pairs the examples with those of another model.
    """

    successes: int
    total: int
    _: KW_ONLY
    offset: float = 0.0
    scale: float = 1.0
    hits: np.ndarray | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, hits: np.ndarray) -> Proportion:
        """Return the proportion of the examples, ``[n]`` of bool, that hit."""
        return cls(int(hits.sum()), len(hits), hits=hits)


@dataclass(frozen=True)
class Paired:
    """Two models on the same examples: ``lost`` only the first got right, ``gained`` only the second.

    Its value is the drop from the first to the second, ``(lost - gained) / total``. ``right`` is how many the
    first got right; a relative drop needs it.
    """

    lost: int
    gained: int
    total: int
    right: int = 0


@dataclass(frozen=True)
class Retained:
    """The second model's accuracy as a share of the first's: ``1 - drop / accuracy``."""

    pairs: Paired


@dataclass(frozen=True)
class RelativeDrop:
    """The drop from the first model to the second as a share of the first's accuracy: ``drop / accuracy``."""

    pairs: Paired


@dataclass(frozen=True)
class Resampled:
    """Any other statistic over a fixed test set: ``statistic(rows)`` of the examples at ``rows``, ``[m]`` of int.

    ``size`` is the number of examples. A statistic is nan for rows that don't define it. ``lowest`` and ``highest``
    are the ends of its scale: bounds don't go past them.
    """

    statistic: Callable[[np.ndarray], float]
    size: int
    lowest: float = -math.inf
    highest: float = math.inf


@dataclass(frozen=True)
class Quantile:
    """A stream of values in the order they came, and which of its quantiles is meant.

    ``values`` may hold ``inf``: a request that never came back is slower than any limit. Where two models were
    measured in turn, ``rounds`` says how many of the values each round holds. ``disturbed`` says which of the values
    were taken while the machine was disturbed, which only makes them higher; it is empty where none were.
    """

    probability: float
    values: tuple[float, ...]
    rounds: tuple[int, ...] = ()
    disturbed: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Events:
    """A stream of what happened or didn't, in the order it came; its value is the share that happened.

    ``disturbed`` says at which of them the machine was disturbed, which only makes events more frequent; it is empty
    where it never was.
    """

    happened: tuple[bool, ...]
    disturbed: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Blocks:
    """Means over consecutive blocks of a stream, in the order they came.

    ``disturbed`` says in which of them the machine was disturbed, which only makes a mean lower; it is empty where it
    never was.
    """

    means: tuple[float, ...]
    disturbed: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Ratios:
    """Ratios of two things measured in turn, one for each round A B B A; its value is their geometric mean."""

    rounds: tuple[float, ...]


@dataclass(frozen=True)
class Quotient:
    """One sample's value over another's, the two independent of each other."""

    over: Sample
    under: Sample


@dataclass(frozen=True)
class Repeats:
    """The same quantity in independent repetitions, such as one value per training."""

    values: tuple[float, ...]


@dataclass(frozen=True)
class WorstOf:
    """The same quantity in every slice; the worst is the one that counts.

    The worst is the lowest, or the highest where ``lowest`` is False. Of a slice of fewer than ``at_least``
    observations nothing is concluded.
    """

    slices: Mapping[str, Sample]
    lowest: bool = True
    at_least: int = 1


Sample = (
    Exact
    | Proportion
    | Paired
    | Retained
    | RelativeDrop
    | Resampled
    | Quantile
    | Events
    | Blocks
    | Ratios
    | Quotient
    | Repeats
    | WorstOf
)


@dataclass(frozen=True)
class Measurement:
    """A sample with how it was taken.

    ``note`` is a remark for the report, such as which slice was worst. The others are empty, or say in words:
    ``invalid`` why nothing may be concluded from the sample; ``doubt`` why a failure could be the measurement's own
    fault, which a pass couldn't be; ``disturbed`` what kept the measurement from seeing more; ``unfit`` why the check
    decides nothing on these data, whatever the model, which is an error. ``reach`` are the lowest and the highest value
    that some model could have on these data, where that is known.
    """

    sample: Sample
    note: str = ""
    _: KW_ONLY
    invalid: str = ""
    doubt: str = ""
    disturbed: str = ""
    unfit: str = ""
    reach: tuple[float, float] = field(default=ANY_VALUE, compare=False)


def quantile(values: tuple[float, ...], probability: float) -> float:
    """Return the smallest value that at least ``probability`` of ``values`` don't exceed; nan of no values."""
    if not values:
        return math.nan
    ranked = sorted(values)
    return ranked[max(0, math.ceil(probability * len(ranked) - 1e-9) - 1)]


def value_of(sample: Sample) -> float:
    """Return the point value, in the metric's base unit; nan where the sample is empty or defines none."""
    match sample:
        case Exact(value):
            return value
        case Proportion(successes, total, offset=offset, scale=scale):
            return offset + scale * successes / total if total else math.nan
        case Paired(lost, gained, total):
            return (lost - gained) / total if total else math.nan
        case Retained(Paired(lost, gained, _, right)):
            return (right - lost + gained) / right if right else math.nan
        case RelativeDrop(pairs):
            return 1 - value_of(Retained(pairs))
        case Resampled(statistic, size):
            return float(statistic(np.arange(size))) if size else math.nan
        case Quantile(probability, values):
            return quantile(values, probability)
        case Events(happened):
            return sum(happened) / len(happened) if happened else math.nan
        case Blocks(values) | Repeats(values):
            return math.fsum(values) / len(values) if values else math.nan
        case Ratios(rounds):
            return math.exp(math.fsum(map(math.log, rounds)) / len(rounds)) if rounds else math.nan
        case Quotient(over, under):
            return _divide(value_of(over), value_of(under))
        case WorstOf(slices, lowest):
            worst = min if lowest else max
            found = (value_of(part) for part in slices.values())
            return worst((value for value in found if not math.isnan(value)), default=math.nan)


def undisturbed(sample: Sample) -> Sample:
    """Return the part of a stream that was taken while the machine was undisturbed; any other sample as it is.

    Nothing is left of a stream of which less than ``LEAST_UNDISTURBED`` was undisturbed.
    """
    match sample:
        case Quantile(probability, values, disturbed=marks) if any(marks):
            return Quantile(probability, _unmarked(values, marks))
        case Events(values, marks) if any(marks):
            return Events(_unmarked(values, marks))
        case Blocks(values, marks) if any(marks):
            return Blocks(_unmarked(values, marks))
        case _:
            return sample


def _unmarked(values: tuple[T, ...], marks: tuple[bool, ...]) -> tuple[T, ...]:
    left = tuple(value for value, marked in zip(values, marks, strict=True) if not marked)
    return left if len(left) >= LEAST_UNDISTURBED * len(values) else ()


def sample_size(sample: Sample) -> int:
    """Return how many observations the sample holds (blocks for a blocked mean, examples over all slices)."""
    match sample:
        case Exact():
            return 1
        case Proportion(_, total) | Paired(_, _, total) | Resampled(_, total):
            return total
        case Retained(pairs) | RelativeDrop(pairs):
            return pairs.total
        case Quantile(_, values) | Events(values) | Blocks(values) | Ratios(values) | Repeats(values):
            return len(values)
        case Quotient(over, under):
            return sample_size(over) + sample_size(under)
        case WorstOf(slices):
            return sum(sample_size(part) for part in slices.values())


def paired(before: np.ndarray, after: np.ndarray) -> Paired:
    """Return two models' hits on the same examples, each ``[n]`` of bool, as pairs."""
    return Paired(int((before & ~after).sum()), int((~before & after).sum()), len(before), int(before.sum()))


def ratio_of(over: Sample, under: Sample) -> Sample:
    """Return the ratio of two models' samples of the same metric: paired where they were taken in pairs.

    Its value is nan where the second is negative or infinite, or both are 0; infinite where the second alone is 0.
    """
    match over, under:
        case Exact(a), Exact(b):
            return Exact(1.0 if a == b else _divide(a, b))
        case Proportion(offset=0.0, scale=1.0, hits=a), Proportion(offset=0.0, scale=1.0, hits=b) if (
            a is not None and b is not None
        ):
            return Retained(paired(b, a))
        case Resampled(f, n, lowest), Resampled(g, m) if n == m:
            return Resampled(lambda rows: _divide(f(rows), g(rows)), n, lowest=0.0 if lowest >= 0 else -math.inf)
        case Blocks(a), Blocks(b) if len(a) == len(b) and min((*a, *b), default=1.0) > 0:
            return Ratios(tuple(map(_divide, a, b)))
        case Quantile(probability, rounds=a), Quantile(rounds=b) if a and len(a) == len(b):
            together = _rounds_per_group(probability, min(sum(a), sum(b)) / len(a))
            ratios = tuple(map(_divide, _quantiles(over, together), _quantiles(under, together)))
            return Ratios(ratios) if all(map(math.isfinite, ratios)) else Quotient(over, under)
        case WorstOf(a, lowest, least), WorstOf(b) if a.keys() == b.keys():
            return WorstOf({name: ratio_of(a[name], b[name]) for name in a}, lowest, least)
        case _:
            return Quotient(over, under)


def _rounds_per_group(probability: float, size: float) -> int:
    """Return how many rounds of a size it takes for a quantile of them to have ``BEYOND`` values beyond it."""
    return max(1, math.ceil(BEYOND / min(probability, 1 - probability) / max(size, 1)))


def _quantiles(sample: Quantile, together: int) -> Iterator[float]:
    """Yield the quantile of each group of ``together`` rounds; the rounds left over belong to the last group.

    The estimate is above the truth as often as below it, whatever the distribution (the eighth of Hyndman and Fan,
    American Statistician 50, 1996). A single observation beside the quantile would be further from it the longer the
    tail, which doesn't cancel between two models whose tails differ.
    """
    ends = (0, *itertools.accumulate(sample.rounds))
    groups = len(sample.rounds) // together
    for group in range(groups):
        first, past = ends[group * together], ends[-1 if group == groups - 1 else (group + 1) * together]
        values = sample.values[first:past] or (math.nan,)  # a round in which nothing counted
        with np.errstate(invalid="ignore"):  # a request that never came back is infinite
            yield float(np.quantile(values, sample.probability, method="median_unbiased"))


def _divide(one: float, other: float) -> float:
    """Return a ratio; nan where it is relative to a negative or an infinite value, and of 0 to 0.

    A share of a negative value doesn't say which of the two is better.
    """
    if not 0 <= other < math.inf:
        return math.nan
    return one / other if other else math.inf if one > 0 else math.nan
