"""What a spec may name. The language knows none of it: the rooms below register what they have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum


class Dimension(StrEnum):
    """What kind of quantity a metric is; it decides its units."""

    TIME = "time"
    SIZE = "size"
    RATE = "rate"
    PROPORTION = "proportion"
    DIFFERENCE = "difference"
    MULTIPLE = "multiple"
    COUNT = "count"
    NUMBER = "number"

    @property
    def article(self) -> str:
        """The dimension as a sentence says it."""
        return {"NUMBER": "a plain number", "COUNT": "a count"}.get(self.name, f"a {self.value}")


UNITS: Mapping[Dimension, Mapping[str, float]] = {
    Dimension.TIME: {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0},
    Dimension.SIZE: {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    Dimension.RATE: {"/s": 1.0, "/min": 1 / 60},
    Dimension.PROPORTION: {"%": 0.01},
    Dimension.DIFFERENCE: {"pp": 0.01, "% rel": 0.01},
    Dimension.MULTIPLE: {"x": 1.0},
    Dimension.COUNT: {"": 1.0},
    Dimension.NUMBER: {"": 1.0},
}
"""Unit to its size in the dimension's base unit: s, B, /s, a fraction, or 1."""


@dataclass(frozen=True, eq=False)
class Metric:
    """A metric's word in the language, equal to itself alone.

    ``direction`` is which is better, ``higher`` or ``lower``; ``stages`` the sections under whose ``expect`` it
    may stand. With ``percentiles`` the name is a family: ``latency.p99``. ``relations`` are those its
    thresholds may (``x trained``) or, where it is a gain (``over majority``), must carry. ``target`` is what the
    labels must be for it, ``class`` or ``number``; empty where that doesn't matter. One ``over_classes`` sets classes
    side by side, and says nothing within one of them.
    """

    name: str
    dimension: Dimension
    direction: str
    stages: frozenset[str]
    percentiles: bool = False
    relations: frozenset[str] = frozenset()
    task: str = ""
    over_classes: bool = False


COMPARISONS = frozenset({"of reference", "of baseline", "x baseline", "x trained"})
"""Relations that any metric may be held to: a share or a multiple of another model's value."""

PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?)")


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The names a spec may use, each with whatever the language needs to know of it; equal to itself alone."""

    metrics: Mapping[str, Metric] = field(default_factory=dict)
    loaders: frozenset[str] = frozenset()
    steps: frozenset[str] = frozenset()
    compressors: frozenset[str] = frozenset()
    runtimes: frozenset[str] = frozenset()
    registries: frozenset[str] = frozenset()

    def extended(self, own: Mapping[str, Metric]) -> Vocabulary:
        """Return the vocabulary with a spec's own metrics; those that are here already stay what they are."""
        return replace(self, metrics={**own, **self.metrics}) if own else self

    def find(self, name: str) -> tuple[Metric, float | None] | None:
        """Return the metric that a name in ``expect`` means, with its percentile (0..1) for a family."""
        metric = self._named(name)
        if metric is not None and not metric.percentiles:
            return metric, None
        family, _, percentile = name.partition(".")
        metric = self._named(family)
        match = PERCENTILE.fullmatch(percentile)
        if metric is None or not metric.percentiles or match is None or float(match[1]) == 0:
            return None
        return metric, float(match[1]) / 100

    def _named(self, name: str) -> Metric | None:
        return self.metrics.get(name)

    def metric_names(self) -> list[str]:
        """Return every metric's name, families by their usual percentiles."""
        names: list[str] = []
        for name, metric in self.metrics.items():
            names += [f"{name}.{p}" for p in ("p50", "p90", "p95", "p99")] if metric.percentiles else [name]
        return names
