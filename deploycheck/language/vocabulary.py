"""What a spec may name. The language itself knows none of these names: what is installed is registered here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from deploycheck.language.errors import Mistake
    from deploycheck.language.fields import Section
    from deploycheck.language.names import Signature


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
        """Return the dimension with its article, for messages."""
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
"""Each unit's size in the base unit of its dimension: s, B, /s, a fraction, or 1."""

RANGES: Mapping[Dimension, tuple[float, float]] = {
    Dimension.PROPORTION: (0.0, 1.0),
    Dimension.DIFFERENCE: (-1.0, 1.0),
    Dimension.NUMBER: (-math.inf, math.inf),
}
"""The values that a metric of a dimension can have, in its base unit; of all other dimensions, 0 and more."""


@dataclass(frozen=True, eq=False)
class Metric:
    """What the language knows of a metric; equal to itself alone.

    ``direction`` says which values are better, ``higher`` or ``lower``; ``stages`` are the sections whose ``expect``
    may name it. With ``percentiles`` the name is a family, such as ``latency`` for ``latency.p99``. ``relations``
    are the relations that its thresholds may have (``x trained``) or, for a gain (``over majority``), must have.
    ``task`` names the task whose models it measures; empty for a metric of any task. A metric with ``over_classes``
    compares classes, so it can't be measured within one class.

    ``lowest`` and ``highest`` are the ends of the values it can have, in its base unit, where they aren't those of its
    dimension. A metric that is ``sampled`` is estimated from examples or requests, so its bounds never reach an end.
    """

    name: str
    dimension: Dimension
    direction: str
    stages: frozenset[str]
    _: KW_ONLY
    percentiles: bool = False
    relations: frozenset[str] = frozenset()
    task: str = ""
    over_classes: bool = False
    lowest: float | None = None
    highest: float | None = None
    sampled: bool = False

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest value that the metric can have, in its base unit."""
        lowest, highest = RANGES.get(self.dimension, (0.0, math.inf))
        return lowest if self.lowest is None else self.lowest, highest if self.highest is None else self.highest


@dataclass(frozen=True, kw_only=True)
class TaskWord:
    """What the language knows of a task, such as ``classification``.

    ``losses`` are the names that ``train.loss`` may have for it; no two tasks share one, so the loss selects the task.
    ``scores`` are what an epoch reports on the validation examples besides the loss. ``labels`` is what messages
    call its labels: ``classes`` or ``numbers``. ``label_slices`` says whether examples can be sliced by ``label``,
    ``most_accurate`` whether ``promote.choose: most_accurate`` can compare its variants. With ``logits``, a model's
    first output are the logits of classes, along its last axis.
    """

    name: str
    losses: tuple[str, ...]
    scores: tuple[str, ...]
    labels: str
    label_slices: bool
    most_accurate: bool
    logits: bool = False


@dataclass(frozen=True, kw_only=True)
class PropertyWord:
    """What the language knows of a property, such as ``finite``.

    ``settings`` is the class of its settings, ``stages`` the sections whose ``properties`` may name it.
    ``find_mistakes(settings, inputs)`` returns what is wrong with settings for a model with these inputs.
    """

    name: str
    settings: type[Section]
    stages: frozenset[str]
    find_mistakes: Callable[[Any, Mapping[str, Any]], Iterable[Mistake]]


LOSS, PARAMETERS = "validation.loss", "parameters"
"""What a search can look for in a model of any task: the loss on the validation split, and the number of weights."""


@dataclass(frozen=True, kw_only=True)
class SamplerWord:
    """What the language knows of a sampler, which chooses what the trials of a search try.

    ``ranges`` are the kinds of values that it can vary: some of ``log``, ``uniform``, ``integers`` and ``choice``.
    It takes ``most_objectives`` at most, and ``fewest_parameters`` at least. With ``each_once`` it tries each
    point of the space once, so there are as many trials as points.
    """

    name: str
    ranges: frozenset[str]
    most_objectives: int
    fewest_parameters: int
    each_once: bool


COMPARISONS = frozenset({"of reference", "of baseline", "x baseline", "x trained"})
"""The relations that thresholds on any metric may have: a share or a multiple of another model's value."""

PERCENTILE = re.compile(r"p([0-9]{1,2}(?:\.[0-9]+)?)")


@dataclass(frozen=True, kw_only=True, eq=False)
class Vocabulary:
    """The names that a spec may use, with what the language needs to know of each; equal to itself alone.

    ``loaders`` and ``preprocessing`` map a name to the arguments that it takes; None where that isn't known.
    ``methods`` maps a compression method to the class of its options, ``scenarios`` a load scenario to those of the
    fields ``arrivals`` and ``rate`` that its load takes, and ``unmeasured`` a load scenario to the metrics that
    can't be measured in it. ``opaque`` maps each runtime whose exports can be read back to whether they can only be
    called. ``registries`` maps the scheme of a registry's URL to a function that raises ``DeploycheckError`` for a
    location that can't be opened, given the location and the project. ``sections`` are further sections of a spec,
    such as a kind of step may need.
    """

    metrics: Mapping[str, Metric] = field(default_factory=dict)
    loaders: Mapping[str, Signature | None] = field(default_factory=dict)
    preprocessing: Mapping[str, Signature | None] = field(default_factory=dict)
    formats: frozenset[str] = frozenset()
    methods: Mapping[str, type[Section]] = field(default_factory=dict)
    runtimes: frozenset[str] = frozenset()
    opaque: Mapping[str, bool] = field(default_factory=dict)
    registries: Mapping[str, Callable[[str, Path], None]] = field(default_factory=dict)
    tasks: Mapping[str, TaskWord] = field(default_factory=dict)
    scenarios: Mapping[str, frozenset[str]] = field(default_factory=dict)
    unmeasured: Mapping[str, frozenset[str]] = field(default_factory=dict)
    sections: Mapping[str, type[Section]] = field(default_factory=dict)
    samplers: Mapping[str, SamplerWord] = field(default_factory=dict)
    properties: Mapping[str, PropertyWord] = field(default_factory=dict)

    def extended(self, own: Mapping[str, Metric]) -> Vocabulary:
        """Return the vocabulary with a spec's own metrics added; metrics that it has already stay as they are."""
        return replace(self, metrics={**own, **self.metrics}) if own else self

    def find(self, name: str) -> tuple[Metric, float | None] | None:
        """Return the metric that a name in ``expect`` means, with its percentile (0..1) for a family."""
        metric = self.metrics.get(name)
        if metric is not None and not metric.percentiles:
            return metric, None
        family, _, percentile = name.partition(".")
        metric = self.metrics.get(family)
        match = PERCENTILE.fullmatch(percentile)
        share = float(match[1]) / 100 if match else 0.0
        return (metric, share) if metric is not None and metric.percentiles and 0 < share < 1 else None

    def metric_names(self) -> list[str]:
        """Return every metric's name, families with their usual percentiles."""
        names: list[str] = []
        for name, metric in self.metrics.items():
            names += [f"{name}.{p}" for p in ("p50", "p90", "p95", "p99")] if metric.percentiles else [name]
        return names

    def task_of(self, loss: object) -> TaskWord | None:
        """Return the task that a loss selects; None for an unknown loss."""
        return next((task for task in self.tasks.values() if loss in task.losses), None)

    def names(self, kind: str) -> list[str]:
        """Return the names that are installed of a ``kind``, as ``fields.Installed`` calls it."""
        match kind:
            case "loss":
                return [loss for task in self.tasks.values() for loss in task.losses]
            case "score":
                scores = (score for task in self.tasks.values() for score in task.scores)
                return list(dict.fromkeys([LOSS, *(f"validation.{score}" for score in scores)]))
            case "objective":
                return [*self.names("score"), PARAMETERS]
            case "sampler":
                return list(self.samplers)
            case "runtime":
                return sorted(self.runtimes)
            case "scenario":
                return list(self.scenarios)
        raise KeyError(kind)
