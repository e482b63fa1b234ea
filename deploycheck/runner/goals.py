"""When a load has shown enough: once every check that looks at it is decided, either way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deploycheck.language import Threshold
from deploycheck.serving.report import LoadReport
from deploycheck.verdict import (
    Blocks,
    Events,
    Measurement,
    Quantile,
    Quotient,
    Ratios,
    Sample,
    is_decided,
    may_be_settled,
)

ARRIVALS, BUSY = (Quantile, Events), (Blocks,)
"""The kinds of samples that each part of a load is for: requests on a schedule, and a server kept busy."""
ROUNDS = (Ratios, Quotient)


@dataclass(frozen=True)
class Goal:
    """One check on a load: how it is measured (of a report, or of two), and the threshold it is held to."""

    measure: Callable[..., Measurement]
    threshold: Threshold
    confidence: float

    def is_settled(self, *reports: LoadReport) -> bool:
        """Whether the check is decided by what the load has shown so far."""
        measurement = self.measure(*reports)
        level = self.threshold.confidence or self.confidence
        if not may_be_settled(measurement.sample, self.threshold, level):
            return False
        return is_decided(measurement, self.threshold, self.confidence)


def of_kind(goals: tuple[Goal, ...], kinds: tuple[type[Sample], ...], *blank: LoadReport) -> tuple[Goal, ...]:
    """Return the goals whose samples are of these kinds; ``blank`` are reports in which nothing was seen yet."""
    return tuple(goal for goal in goals if isinstance(goal.measure(*blank).sample, kinds))


def all_settled(goals: tuple[Goal, ...], *reports: LoadReport) -> bool:
    """Whether there are goals and each is decided; where there are none, a load says nothing until its end."""
    return bool(goals) and all(goal.is_settled(*reports) for goal in goals)
