"""Quantities as people read them: ``97.9 %``, ``3.21 ms``, ``34.2 kB``."""

from __future__ import annotations

import math

from deploycheck.language import Dimension
from deploycheck.language.vocabulary import UNITS

BASE_UNITS = {
    Dimension.TIME: "s", Dimension.SIZE: "B", Dimension.RATE: "/s", Dimension.PROPORTION: "", Dimension.DIFFERENCE: "",
    Dimension.MULTIPLE: "x", Dimension.COUNT: "", Dimension.NUMBER: "",
}  # fmt: skip
"""The unit that a value in the evidence is in; none for fractions, counts and plain numbers."""

_SHOWN = {
    Dimension.TIME: ("us", "ms", "s"),
    Dimension.SIZE: ("B", "kB", "MB", "GB"),
    Dimension.RATE: ("/s",),
    Dimension.PROPORTION: ("%",),
    Dimension.DIFFERENCE: ("pp",),
    Dimension.MULTIPLE: ("x",),
}


def quantity(value: float, dimension: Dimension) -> str:
    """Return a value in the largest unit that leaves it at 1 or more."""
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "unbounded"
    if dimension is Dimension.COUNT:
        return f"{value:,.0f}"
    units = _SHOWN.get(dimension)
    if units is None:
        return f"{value:.3g}"
    fitting = [unit for unit in units if abs(value) >= UNITS[dimension][unit]]
    unit = fitting[-1] if fitting else units[0]
    scaled = value / UNITS[dimension][unit]
    digits = f"{scaled:,.0f}" if abs(scaled) >= 1000 else f"{scaled:.3g}"
    return f"{digits} {unit}"


def with_interval(value: float, low: float, high: float, dimension: Dimension) -> str:
    """Return a value with its bounds, where it has any."""
    shown = quantity(value, dimension)
    if low == high or (math.isinf(low) and math.isinf(high)):
        return shown
    return f"{shown} ({quantity(low, dimension)} to {quantity(high, dimension)})"
