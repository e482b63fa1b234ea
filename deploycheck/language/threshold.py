"""Thresholds: ``">= 99 % of reference @ 95 %"``.

The grammar::

    threshold  := comparator number [unit] [relation] ["@" confidence]
    comparator := ">=" | "<=" | "==" | ">" | "<"
    unit       := "ns" | "us" | "ms" | "s" | "min" | "h"           (a time)
                | "B" | "kB" | "MB" | "GB" | "KiB" | "MiB" | "GiB" (a size)
                | "/s" | "/min"                                    (a rate)
                | "%"                                              (a proportion)
                | "pp" | "% rel"                                   (a drop or a gain)
                | "x"                                              (a multiple)
    relation   := ("of" | "over" | "x") name
    confidence := number "%" | "point"

``unit`` must be one of the metric's dimension; a count and a plain number have none.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field, replace
from decimal import Decimal

from deploycheck.language.vocabulary import UNITS, Dimension, Metric

COMPARATORS = (">=", "<=", "==", ">", "<")
RELATIVE = "% rel"

_TOKEN = re.compile(
    r"\s*(?:(?P<comparator>>=|<=|==|>|<)|(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<at>@)|(?P<word>%|/[a-z]+|[^\W\d][\w.-]*))"
)


class ThresholdError(ValueError):
    """What is wrong with a threshold's text; ``column`` counts from 0 within it."""

    def __init__(self, what: str, column: int, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.column = column
        self.hint = hint


@dataclass(frozen=True)
class Relation:
    """What a threshold's number is relative to: ``of reference``, ``over majority``, ``x trained``."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Threshold:
    """What a metric must meet.

    ``value`` is in the metric's base unit (seconds, bytes, per second, a fraction). ``confidence`` (a fraction)
    is None where the spec's own applies; with ``point`` the value is compared without an interval. ``text`` is the
    threshold as the spec writes it. ``lowest`` and ``highest`` are the ends of what is compared, where it has ends.
    """

    comparator: str
    value: float
    unit: str
    dimension: Dimension
    _: KW_ONLY
    relation: Relation | None = None
    confidence: float | None = None
    point: bool = False
    text: str = field(default="", compare=False)
    lowest: float | None = field(default=None, compare=False)
    highest: float | None = field(default=None, compare=False)

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest value of what is compared, infinite where there is none."""
        low, high = self.lowest, self.highest
        return -math.inf if low is None else low, math.inf if high is None else high

    def __str__(self) -> str:
        scale = UNITS[self.dimension][self.unit]
        parts = [self.comparator, str(Decimal(repr(self.value)) / Decimal(repr(scale)))]
        if self.relation is None or self.relation.kind != "x":
            parts += [self.unit] if self.unit else []
        parts += [str(self.relation)] if self.relation else []
        if self.point:
            parts.append("@ point")
        elif self.confidence is not None:
            parts.append(f"@ {self.confidence * 100!r} %")
        return " ".join(parts)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    column: int


def _tokens(text: str) -> Iterator[_Token]:
    column = 0
    while text[column:].strip():
        match = _TOKEN.match(text, column)
        if match is None or match.lastgroup is None:
            start = column + len(text[column:]) - len(text[column:].lstrip())
            hint = "write the digits 0 to 9" if text[start].isdigit() else ""
            raise ThresholdError(f"unexpected {text[start]!r} in a threshold", start, hint)
        yield _Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup))
        column = match.end()


class _Scanner:
    """A cursor over tokens; each ``take`` reports what it expected and what it found."""

    def __init__(self, text: str) -> None:
        self.tokens = [*_tokens(text), _Token("end", "", len(text.rstrip()))]
        self.position = 0

    @property
    def next(self) -> _Token:
        return self.tokens[self.position]

    def accept(self, kind: str, *texts: str) -> _Token | None:
        token = self.next
        if token.kind != kind or (texts and token.text not in texts):
            return None
        self.position += 1
        return token

    def take(self, kind: str, expected: str) -> _Token:
        token = self.accept(kind)
        if token is None:
            found = repr(self.next.text) if self.next.text else "the end"
            raise ThresholdError(f"expected {expected}, found {found}", self.next.column)
        return token


def parse_threshold(text: str, metric: Metric) -> Threshold:
    """Parse a threshold on ``metric``; raise ``ThresholdError`` pointing at the column that is wrong."""
    scan = _Scanner(text)
    if scan.next.kind == "number":
        raise ThresholdError(
            f"a threshold on {metric.name} needs a comparator",
            scan.next.column,
            f"did you mean {_completed(text.strip(), metric)!r}?",
        )
    comparator = scan.take("comparator", "a comparator (>=, <=, ==, > or <)").text
    number = scan.take("number", "a number")
    unit = _unit(scan)
    relation = _relation(scan, unit)
    if relation and relation.kind == "x":
        unit = _Token("word", "x", unit.column if unit else number.column)
    dimension = _dimension(metric, relation)
    scale = _scale(metric, dimension, unit, number)
    confidence, point = _confidence(scan)
    if scan.next.kind != "end":
        raise ThresholdError(f"unexpected {scan.next.text!r} after the threshold", scan.next.column)
    value = _in_base_unit(number, scale)
    low, high = _range(metric, relation, unit)
    return Threshold(
        comparator,
        value,
        unit.text if unit else "",
        dimension,
        relation=relation,
        confidence=confidence,
        point=point,
        text=" ".join(text.split()),
        lowest=low if math.isfinite(low) else None,
        highest=high if math.isfinite(high) else None,
    )


def _range(metric: Metric, relation: Relation | None, unit: _Token | None) -> tuple[float, float]:
    """Return the lowest and the highest value of a metric, or of its ratio to another model's."""
    if unit and unit.text == RELATIVE:
        return -math.inf, 1.0
    lowest, highest = metric.range
    is_ratio = relation is not None and str(relation) not in metric.relations
    if is_ratio and metric.dimension is not Dimension.DIFFERENCE:
        return (0.0 if lowest >= 0 else -math.inf), math.inf
    return lowest, highest


def _completed(text: str, metric: Metric) -> str:
    """Return the threshold that was probably meant by a bare quantity; for a proportion, 0.9 means 90 %."""
    comparator = ">=" if metric.direction == "higher" else "<="
    if metric.dimension is Dimension.PROPORTION and re.fullmatch(r"(0?\.[0-9]+|[01](\.0*)?)", text):
        text = f"{100 * float(text):.10g} %"
    return f"{comparator} {text}"


def _in_base_unit(number: _Token, scale: float) -> float:
    """Return a number in the base unit, rounded once: 7000 ns is 7 us to the last bit."""
    written = float(number.text)
    # Decimal has a larger range than float, so numbers beyond a float's range never reach it.
    value = float(Decimal(number.text) * Decimal(repr(scale))) if 0 < abs(written) < math.inf else written
    if not math.isfinite(value):
        raise ThresholdError("the number is too large", number.column)
    return value


def _unit(scan: _Scanner) -> _Token | None:
    unit = scan.accept("word") if scan.next.text not in ("of", "over") else None
    if unit and unit.text == "%" and scan.accept("word", "rel"):
        return replace(unit, text=RELATIVE)
    return unit


def _relation(scan: _Scanner, unit: _Token | None) -> Relation | None:
    kind = scan.accept("word", "of", "over")
    if kind:
        return Relation(kind.text, scan.take("word", f"a name after {kind.text!r}").text)
    if unit and unit.text == "x":
        name = scan.accept("word")
        return Relation("x", name.text) if name else None
    return None


def _dimension(metric: Metric, relation: Relation | None) -> Dimension:
    """Return a threshold's dimension: ``of`` makes it a proportion, except for a difference; ``x`` a multiple."""
    if relation and relation.kind == "of" and metric.dimension is not Dimension.DIFFERENCE:
        return Dimension.PROPORTION
    if relation and relation.kind == "x":
        return Dimension.MULTIPLE
    return metric.dimension


def _scale(metric: Metric, dimension: Dimension, unit: _Token | None, number: _Token) -> float:
    units = UNITS[dimension]
    written = unit.text if unit else ""
    if written in units:
        return units[written]
    column = unit.column if unit else number.column + len(number.text)
    if dimension is Dimension.DIFFERENCE:
        raise ThresholdError(
            f"{metric.name} is a difference: its unit is pp (percentage points) or % rel (of the reference), "
            f"never {'a bare ' + written if written else 'a bare number'}",
            column,
            f"did you mean '{number.text} pp'?",
        )
    allowed = " or ".join(name for name in units if name) or "no unit"
    found = f"found {written!r}" if written else "found none"
    raise ThresholdError(f"{metric.name} is {dimension.article}, in {allowed}; {found}", column)


def _confidence(scan: _Scanner) -> tuple[float | None, bool]:
    if not scan.accept("at"):
        return None, False
    if scan.accept("word", "point"):
        return None, True
    number = scan.take("number", "a confidence, such as 95 %, or 'point'")
    if not scan.accept("word", "%"):
        raise ThresholdError("a confidence is in %", scan.next.column, f"did you mean '@ {number.text} %'?")
    confidence = float(number.text) / 100
    if not 0.5 <= confidence < 1:
        raise ThresholdError(f"a confidence is at least 50 % and under 100 %, found {number.text} %", number.column)
    return confidence, False


@functools.lru_cache(maxsize=1024)
def parse_quantity(text: str, dimension: Dimension) -> float:
    """Parse a plain quantity, ``"2 ms"`` or ``"80 %"``, into the dimension's base unit."""
    scan = _Scanner(text)
    number = scan.take("number", f"a number with its unit ({' or '.join(UNITS[dimension])})")
    unit = scan.accept("word")
    if unit is None or unit.text not in UNITS[dimension]:
        found = f"found {unit.text!r}" if unit else "found none"
        raise ThresholdError(
            f"expected {dimension.article}, in {' or '.join(UNITS[dimension])}; {found}",
            unit.column if unit else scan.next.column,
        )
    if scan.next.kind != "end":
        raise ThresholdError(f"unexpected {scan.next.text!r}", scan.next.column)
    return _in_base_unit(number, UNITS[dimension][unit.text])


def tighter_or_equal(child: Threshold, confidence: float, parent: Threshold, parent_confidence: float) -> bool:
    """Whether whatever meets ``child`` also meets ``parent``, with no less confidence.

    Each confidence (a fraction) is the default of the threshold's file, for a threshold that names none.
    Thresholds in units that can't be compared (``pp`` and ``% rel``), or relative to different things, are never
    tighter.
    """
    if child.relation != parent.relation or child.dimension != parent.dimension:
        return False
    if (child.unit == RELATIVE) != (parent.unit == RELATIVE):
        return False
    if _level(child, confidence) < _level(parent, parent_confidence):
        return False
    child_low, child_high = _allowed(child)
    parent_low, parent_high = _allowed(parent)
    return parent_low <= child_low and child_high <= parent_high


def _level(threshold: Threshold, confidence: float) -> float:
    if threshold.point:
        return 0.0
    return confidence if threshold.confidence is None else threshold.confidence


def _allowed(threshold: Threshold) -> tuple[tuple[float, int], tuple[float, int]]:
    """Return the range of values that meet a threshold; the second parts order an open end inside a closed one."""
    value = threshold.value
    match threshold.comparator:
        case ">=":
            return (value, 0), (math.inf, 0)
        case ">":
            return (value, 1), (math.inf, 0)
        case "<=":
            return (-math.inf, 0), (value, 0)
        case "<":
            return (-math.inf, 0), (value, -1)
        case _:
            return (value, 0), (value, 0)
