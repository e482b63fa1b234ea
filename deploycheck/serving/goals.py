"""When to stop a load: as soon as every check that uses it has passed or failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deploycheck.language import Threshold
from deploycheck.serving.load_report import LoadReport
from deploycheck.verdict import Blocks, Events, Measurement, Quantile, is_decided, may_be_settled

REQUEST_SAMPLES = (Quantile, Events)
"""The kinds of samples that requests on the scenario's schedule give."""
THROUGHPUT_SAMPLES = (Blocks,)
"""The kinds of samples that a server kept busy gives."""
TIMED_SAMPLES = (Quantile, Blocks)
"""The kinds of samples that a disturbance of the machine changes."""


@dataclass(frozen=True)
class Goal:
    """One check on a load: how it is measured (of a report, or of two), and the threshold it is compared with.

    ``confidence`` (a fraction) is the spec's. ``sample`` is the kind of sample that the check's metric declares, of
    one report.
    """

    measure: Callable[..., Measurement]
    threshold: Threshold
    confidence: float
    sample: type

    def is_decided(self, *reports: LoadReport) -> bool:
        """Whether the check passes or fails by what the load has shown so far."""
        measurement = self.measure(*reports)
        level = self.threshold.confidence or self.confidence
        if not may_be_settled(measurement.sample, self.threshold, level):
            return False
        return is_decided(measurement, self.threshold, self.confidence)


def goals_on(goals: tuple[Goal, ...], samples: tuple[type, ...]) -> tuple[Goal, ...]:
    """Return the goals whose samples are of these kinds."""
    return tuple(goal for goal in goals if issubclass(goal.sample, samples))


def all_decided(goals: tuple[Goal, ...], *reports: LoadReport) -> bool:
    """Whether there are goals and each is decided; a load without goals is never cut short."""
    return bool(goals) and all(goal.is_decided(*reports) for goal in goals)
