"""Quantities as people read them: ``97.9 %``, ``3.21 ms``, ``34.2 kB``."""

from __future__ import annotations

import math

from deploycheck.language import Dimension
from deploycheck.language.vocabulary import UNITS

BASE_UNITS = {
    Dimension.TIME: "s",
    Dimension.SIZE: "B",
    Dimension.RATE: "/s",
    Dimension.PROPORTION: "",
    Dimension.DIFFERENCE: "",
    Dimension.MULTIPLE: "x",
    Dimension.COUNT: "",
    Dimension.NUMBER: "",
}
"""The unit of values in the evidence; empty for fractions, counts and plain numbers."""

_SHOWN = {
    Dimension.TIME: ("us", "ms", "s"),
    Dimension.SIZE: ("B", "kB", "MB", "GB"),
    Dimension.RATE: ("/s",),
    Dimension.PROPORTION: ("%",),
    Dimension.DIFFERENCE: ("pp",),
    Dimension.MULTIPLE: ("x",),
}

NOTHING = "nothing was measured"
"""In place of a value, where there is none."""


def quantity(value: float, dimension: Dimension) -> str:
    """Return a value in the largest unit in which it is at least 1: ``3.21 ms``."""
    unit = _unit(value, dimension) if math.isfinite(value) else ""
    return f"{_number(value, unit, dimension)} {unit}".rstrip()


def with_interval(value: float, low: float, high: float, dimension: Dimension) -> str:
    """Return a value with its bounds, if it has any, all in the unit of the value: ``99.2 % (98.4 to 99.6)``."""
    shown = quantity(value, dimension)
    if low == high or not math.isfinite(value) or (math.isinf(low) and math.isinf(high)):
        return shown
    unit = _unit(value, dimension)
    return f"{shown} ({_number(low, unit, dimension)} to {_number(high, unit, dimension)})"


def _unit(value: float, dimension: Dimension) -> str:
    units = _SHOWN.get(dimension, ("",))
    rounded = abs(float(f"{value:.3g}"))
    fitting = [unit for unit in units if rounded >= UNITS[dimension][unit]]
    return fitting[-1] if fitting else units[0]


def _number(value: float, unit: str, dimension: Dimension) -> str:
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "unbounded"
    scaled = value / UNITS[dimension].get(unit, 1.0)
    if dimension is Dimension.PROPORTION and 99.9 < scaled < 100:
        return f"{math.floor(scaled * 100) / 100:g}"  # rounding would show 100 %
    return f"{scaled:,.0f}" if abs(scaled) >= 999.5 or dimension is Dimension.COUNT else f"{scaled:.3g}"
