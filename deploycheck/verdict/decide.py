"""A measurement compared with a threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum

from deploycheck.language.threshold import Threshold
from deploycheck.verdict.bounds import bounds, point_bounds
from deploycheck.verdict.sample_size import what_would_decide
from deploycheck.verdict.samples import Exact, Measurement, Quotient, Ratios, sample_size, value_of


class Outcome(StrEnum):
    """How a check ends.

    ``fail`` says that the model is bad, ``error`` that something broke before that could be known.
    """

    PASS = "pass"  # noqa: S105 - an outcome, not a password
    WARN = "warn"
    FAIL = "fail"
    UNDECIDED = "undecided"
    WAIVED = "waived"
    ERROR = "error"

    @property
    def blocks(self) -> bool:
        """Whether a check with this outcome keeps its spec from being promoted."""
        return self in (Outcome.FAIL, Outcome.UNDECIDED, Outcome.ERROR)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """An outcome and its grounds.

    ``low`` and ``high`` are one-sided bounds at ``confidence``, in the metric's base unit; ``confidence`` is
    None where the bare value was compared. ``reason`` is one sentence for a person.
    """

    outcome: Outcome
    value: float
    low: float
    high: float
    confidence: float | None
    samples: int
    reason: str


def decide(measurement: Measurement, threshold: Threshold, confidence: float) -> Verdict:
    """Return pass, fail or undecided; the reason of an undecided check says what would decide it.

    ``confidence`` (a fraction) is the spec's; the threshold's own ``@`` overrides it. A value that is not a
    number, and a sample that its measurement calls invalid, never pass.
    """
    verdict, is_open = _compare(measurement, threshold, confidence)
    if not is_open:
        return verdict
    level = threshold.confidence if threshold.confidence is not None else confidence
    reasons = (measurement.disturbed, what_would_decide(measurement.sample, threshold, level))
    return replace(verdict, reason="; ".join(filter(None, reasons)))


def is_decided(measurement: Measurement, threshold: Threshold, confidence: float) -> bool:
    """Whether the check has passed or failed by now: a cheaper ``decide``, for load tests, which ask often."""
    verdict, _ = _compare(measurement, threshold, confidence)
    return verdict.outcome in (Outcome.PASS, Outcome.FAIL)


def _compare(measurement: Measurement, threshold: Threshold, confidence: float) -> tuple[Verdict, bool]:
    """Return the verdict, and whether more observations could change it: the threshold is within the interval."""
    sample = measurement.sample
    value = value_of(sample)
    exact = isinstance(sample, Exact) or threshold.point
    level = threshold.confidence if threshold.confidence is not None else confidence
    low, high = point_bounds(sample) if exact else bounds(sample, level)
    verdict = Verdict(
        outcome=Outcome.UNDECIDED,
        value=value,
        low=low,
        high=high,
        confidence=None if exact else level,
        samples=sample_size(sample),
        reason=measurement.note,
    )
    if measurement.invalid:
        return replace(verdict, reason=measurement.invalid), False
    if not sample_size(sample) and (measurement.disturbed or isinstance(sample, Ratios)):
        why = measurement.disturbed or "too few rounds were measured to compare the two models"
        return replace(verdict, reason=why), False
    if math.isnan(value) and not isinstance(sample, Quotient):
        reason = "the measured value is not a number" if sample_size(sample) else "nothing was measured"
        return replace(verdict, outcome=Outcome.ERROR, reason=reason), False
    if _is_met(threshold, low, high):
        return replace(verdict, outcome=Outcome.PASS), False
    if not _is_missed(threshold, low, high):
        return verdict, True
    if measurement.doubt:
        return replace(verdict, reason=measurement.doubt), False
    return replace(verdict, outcome=Outcome.FAIL), False


def settle(verdict: Verdict, severity: str, waived_until: date | None, today: date) -> Verdict:
    """Return the verdict that counts, given how severe its check is and whether it is waived.

    A check whose waiver has ended fails whatever was measured, so that no waiver is forgotten.
    """
    if waived_until is not None and today > waived_until:
        reason = f"its waiver ended on {waived_until.isoformat()}: remove it, or renew it"
        return replace(verdict, outcome=Outcome.FAIL, reason=reason)
    if verdict.outcome in (Outcome.FAIL, Outcome.UNDECIDED):
        if waived_until is not None:
            return replace(verdict, outcome=Outcome.WAIVED)
        if severity == "warn":
            return replace(verdict, outcome=Outcome.WARN)
    return verdict


def _is_met(threshold: Threshold, low: float, high: float) -> bool:
    """Whether every value between the bounds meets the threshold."""
    limit = threshold.value
    match threshold.comparator:
        case ">=":
            return low >= limit
        case ">":
            return low > limit
        case "<=":
            return high <= limit
        case "<":
            return high < limit
        case _:
            return low == high == limit


def _is_missed(threshold: Threshold, low: float, high: float) -> bool:
    """Whether no value between the bounds meets the threshold."""
    limit = threshold.value
    match threshold.comparator:
        case ">=":
            return high < limit
        case ">":
            return high <= limit
        case "<=":
            return low > limit
        case "<":
            return low >= limit
        case _:
            return high < limit or low > limit
