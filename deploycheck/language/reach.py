"""Whether a threshold decides anything: some models must be able to meet it, and some to miss it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal

from deploycheck.language.threshold import RELATIVE, Threshold, ThresholdError
from deploycheck.language.vocabulary import UNITS, Dimension, Metric

MOST_OBSERVATIONS = 100_000_000
"""More examples or requests than this nobody has."""

FINEST: Mapping[Dimension, float] = {
    Dimension.TIME: 1e-9,
    Dimension.SIZE: 1.0,
    Dimension.RATE: 1e-6,
    Dimension.PROPORTION: 1 / MOST_OBSERVATIONS,
    Dimension.DIFFERENCE: 1 / MOST_OBSERVATIONS,
    Dimension.MULTIPLE: 1 / MOST_OBSERVATIONS,
}
"""The smallest difference that a measurement can show, in the base unit; of a proportion, one observation."""

LARGEST: Mapping[Dimension, float] = {
    Dimension.TIME: 86_400.0,
    Dimension.SIZE: 1e15,
    Dimension.RATE: 1e9,
    Dimension.COUNT: 1e15,
    Dimension.NUMBER: 1e38,
}
"""What no measurement reaches, where a metric's range is open; a number is at most what a float32 can hold."""
_LARGEST_RATIO = 1e9
_LONGEST = 1e15
"""Larger numbers are shown with an exponent."""


def check_reach(threshold: Threshold, metric: Metric, text: str) -> None:
    """Raise ``ThresholdError`` for a threshold that every model meets, and for one that none can meet."""
    limit = threshold.value
    low, high = _ends(threshold)
    finest = FINEST.get(threshold.dimension, 0.0)
    is_estimate = metric.sampled and not threshold.point
    is_higher = threshold.comparator.startswith(">")
    if threshold.comparator == "==":
        _check_equality(threshold, metric, text, is_estimate=is_estimate)
        is_free, is_impossible, is_end = False, not low <= limit <= high, False
    else:
        # For a metric of which lower is better, the same in the mirror.
        worst, best, asked = (low, high, limit) if is_higher else (-high, -low, -limit)
        is_strict = threshold.comparator in (">", "<")
        is_reached = math.isfinite(threshold.range[1 if is_higher else 0])
        is_free = asked < worst if is_strict and not is_estimate else asked <= worst or asked < worst + finest
        is_impossible = asked > best or (asked >= best and (is_strict or not is_reached))
        is_end = is_estimate and is_reached and (asked >= best or asked > best - finest)
    column = max(0, text.find(threshold.comparator))
    if is_free:
        is_open = math.isinf(threshold.range[0 if is_higher else 1])
        beyond = "; no measurement is beyond that" if is_open else ""
        what = f"every model meets {_quoted(threshold)}: {_range_of(threshold, metric, low, high)}{beyond}"
        raise ThresholdError(what, column, f"write {_better(threshold, low, high)}, or leave the check out")
    if is_impossible:
        what = f"no model can meet {_quoted(threshold)}: {_range_of(threshold, metric, low, high)}"
        raise ThresholdError(what, column, "write a limit inside of that range")
    if is_end:
        why = f"{metric.name} is measured on a sample, whose bounds never reach the limit"
        what = f"no model can meet {_quoted(threshold)}: {why}"
        raise ThresholdError(what, column, f"write {_easier(threshold, low, high)}, or '{threshold.text} @ point'")


def _ends(threshold: Threshold) -> tuple[float, float]:
    """Return the ends of what is compared; of an open one, what no measurement reaches."""
    low, high = threshold.range
    most = LARGEST.get(threshold.dimension, _LARGEST_RATIO)
    return max(low, -most), min(high, most)


def _check_equality(threshold: Threshold, metric: Metric, text: str, *, is_estimate: bool) -> None:
    column = max(0, text.find("=="))
    better = ">=" if metric.direction == "higher" else "<="
    if is_estimate:
        why = f"{metric.name} is measured on a sample, whose bounds are never equal"
        what = f"no model can meet {_quoted(threshold)}: {why}"
        raise ThresholdError(what, column, f"write '{threshold.text.replace('==', better, 1)}'")
    if threshold.dimension is Dimension.COUNT and not threshold.value.is_integer():
        raise ThresholdError(f"no model can meet {_quoted(threshold)}: a count is a whole number", column)


def _quoted(threshold: Threshold) -> str:
    return f"'{threshold.text}'"


def _range_of(threshold: Threshold, metric: Metric, low: float, high: float) -> str:
    """Return the range of what is compared, in words: ``accuracy is from 0 % to 100 %``.

    Of a range with an open end, the end that the limit is beyond: ``latency is below 24 h``.
    """
    relation = threshold.relation
    is_ratio = relation is not None and str(relation) not in metric.relations
    name = metric.name if not is_ratio or metric.dimension is Dimension.DIFFERENCE else f"a ratio of {metric.name}"
    has_low, has_high = map(math.isfinite, threshold.range)
    if has_low and has_high:
        return f"{name} is from {in_unit(low, threshold)} to {in_unit(high, threshold)}"
    if threshold.value < (low + high) / 2:
        return f"{name} is {'at least' if has_low else 'above'} {in_unit(low, threshold)}"
    return f"{name} is {'at most' if has_high else 'below'} {in_unit(high, threshold)}"


def _better(threshold: Threshold, low: float, high: float) -> str:
    is_higher = threshold.comparator.startswith(">")
    return f"a limit {'above' if is_higher else 'below'} {in_unit(low if is_higher else high, threshold)}"


def _easier(threshold: Threshold, low: float, high: float) -> str:
    is_higher = threshold.comparator.startswith(">")
    return f"a limit {'below' if is_higher else 'above'} {in_unit(high if is_higher else low, threshold)}"


def in_unit(value: float, threshold: Threshold) -> str:
    """Return a value in the threshold's own unit."""
    unit = threshold.unit if threshold.unit in UNITS[threshold.dimension] else next(iter(UNITS[threshold.dimension]))
    scaled = Decimal(repr(value)) / Decimal(repr(UNITS[threshold.dimension][unit]))
    number = f"{scaled:,.9f}" if abs(scaled) < _LONGEST else f"{scaled:.6g}"
    number = number.rstrip("0").rstrip(".") if "." in number else number
    return f"{number} {unit if unit != RELATIVE else '% rel'}".rstrip()
