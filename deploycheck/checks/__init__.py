"""Metrics: each is one function that yields a Measurement."""

from deploycheck.checks.metric import SUBJECTS, MetricFunction, metric

__all__ = ["SUBJECTS", "MetricFunction", "metric"]
