"""A property as a metric: the number of its counterexamples, none or one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deploycheck.checks.metric import MetricFunction
from deploycheck.errors import DeploycheckError
from deploycheck.language import Dimension, Metric
from deploycheck.verdict import Exact, Measurement

if TYPE_CHECKING:
    from collections.abc import Mapping


def property_metric(name: str, subject: str) -> MetricFunction:
    """Return the metric of the property whose check has this name; ``subject`` is what its step found.

    Measuring raises ``DeploycheckError`` where the property couldn't be checked.
    """

    def counterexamples(**found: Mapping[str, Any]) -> Measurement:
        result = found[subject][name]
        if result.error:
            raise DeploycheckError(result.error)
        return Measurement(Exact(float(bool(result.violation))), note=describe_counterexample(result))

    word = Metric(name, Dimension.COUNT, "lower", frozenset({subject.removesuffix("_properties")}))
    return MetricFunction(word, frozenset({subject}), Exact, counterexamples)


def describe_counterexample(result: Any) -> str:
    """Return how a property was violated, and by which input; empty where it wasn't."""
    if not result.violation:
        return ""
    replayed = " (an earlier run had found it)" if result.replayed else ""
    return f"{result.violation}, for {result.counterexample}{replayed}"
