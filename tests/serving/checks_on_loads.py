"""Goals as the checks of a spec would be, made of samples alone."""

from __future__ import annotations

import math
from collections.abc import Callable

from deploycheck.language import Dimension, Threshold
from deploycheck.serving.goals import Goal
from deploycheck.serving.load_report import LoadReport
from deploycheck.verdict import Blocks, Events, Exact, Measurement, Quantile, Sample, ratio_of

Read = Callable[[LoadReport], Sample]


def latency(probability: float) -> Read:
    return lambda load: Quantile(probability, load.latencies_s, load.rounds)


def error_rate(load: LoadReport) -> Sample:
    return Events(tuple(map(math.isinf, load.latencies_s)))


def throughput(load: LoadReport) -> Sample:
    return Blocks(load.requests_per_s)


def errors(load: LoadReport) -> Sample:
    return Exact(load.failed)


def goal(read: Read, comparator: str, limit: float, confidence: float | None = None) -> Goal:
    """Return a check on one load."""
    threshold = Threshold(comparator, limit, "", Dimension.NUMBER, confidence=confidence)
    return Goal(lambda load: Measurement(read(load)), threshold, 0.95, type(read(LoadReport())))


def ratio_goal(read: Read, comparator: str, limit: float) -> Goal:
    """Return a check on the ratio of two loads."""
    threshold = Threshold(comparator, limit, "x", Dimension.MULTIPLE)
    return Goal(
        lambda one, other: Measurement(ratio_of(read(one), read(other))), threshold, 0.95, type(read(LoadReport()))
    )


def p99(limit: float, confidence: float | None = None) -> Goal:
    return goal(latency(0.99), "<=", limit, confidence)


FAST = goal(latency(0.5), "<=", 5.0)
FEW_FAIL = goal(error_rate, "<=", 0.05)
ANSWERS_MANY = goal(throughput, ">=", 500)
ANSWERS_SOME = goal(throughput, ">=", 1.0)
NONE_FAILS = goal(errors, "==", 0)
MEDIAN_OF_TWO = ratio_goal(latency(0.5), "<=", 1000.0)
AS_FAST = ratio_goal(throughput, ">=", 0.01)
FASTER = ratio_goal(throughput, ">=", 1.2)
