"""The metrics of every family."""

from __future__ import annotations

from deploycheck.checks import MetricFunction, data, latency, quality, regression, size, statistics

FAMILIES = (data, latency, quality, regression, size, statistics)


def built_in_metrics() -> list[MetricFunction]:
    return [value for family in FAMILIES for value in vars(family).values() if type(value) is MetricFunction]
