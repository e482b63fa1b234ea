"""How a metric is declared: one decorated function.

The function's parameters say what it looks at, by these names. The plan runs the steps that make them, and no others:

================== ==============================================================================
labels             the test split's class numbers, or with ``task="regression"`` its numbers, ``[n]``
outputs            the variant's answers on the test split, as its exported artifact gives them: logits,
                   ``[n, classes]``, or one number each, ``[n, 1]``
reference_outputs  the same of the model it is compared with: the trained model, or the baseline where the
                   threshold says so
artifact           the variant's exported artifact
reference_artifact the exported artifact of the model it is compared with
training           ``TrainingReport``: every seed's epochs, and which seed is deployed
dataset            ``Dataset``: the three splits
load               ``LoadReport``: what a load test of the variant measured
percentile         for a family such as ``latency``: the percentile that the spec names, 0..1
================== ==============================================================================
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from deploycheck.errors import DeploycheckError
from deploycheck.language.vocabulary import Dimension, Metric
from deploycheck.verdict import Exact, Measurement, Repeats, Resampled, Sample

SUBJECTS = frozenset(
    {"labels", "outputs", "reference_outputs", "artifact", "reference_artifact", "training", "dataset", "load"}
)
TASK_SUBJECTS = frozenset({"labels", "outputs", "reference_outputs"})
"""The subjects whose content depends on the model's task."""


@dataclass(frozen=True)
class MetricFunction:
    """A metric: its word in the language, what it looks at, the sample it returns, and the function itself."""

    word: Metric
    subjects: frozenset[str]
    sample: type[Sample]
    function: Callable[..., Measurement]

    def measure(self, *given: Any, **named: Any) -> Measurement:
        """Call the function on its subjects; the range of a statistic is the metric's.

        Raises ``DeploycheckError`` where it returns another sample than the metric declares.
        """
        measurement: Any = self.function(*given, **named)
        if not isinstance(measurement, Measurement) or not isinstance(measurement.sample, self.sample):
            found = type(getattr(measurement, "sample", measurement)).__name__
            what = f"metric {self.word.name!r} returned {found}, expected a Measurement of {self.sample.__name__}"
            raise DeploycheckError(what, hint="return that sample, or declare the one that it returns: `sample=`")
        if isinstance(measurement.sample, Resampled):
            sample, (lowest, highest) = measurement.sample, self.word.range
            lowest, highest = max(lowest, sample.lowest), min(highest, sample.highest)
            return replace(measurement, sample=replace(sample, lowest=lowest, highest=highest))
        return measurement


def metric(
    name: str, *, dimension: Dimension, direction: str, stages: Iterable[str], sample: type[Sample], **word: Any
) -> Callable[[Callable[..., Measurement]], MetricFunction]:
    """Declare a metric.

    ``dimension`` decides its units, ``direction`` is ``higher`` or ``lower`` (which is better), ``stages`` are
    the sections whose ``expect`` may name it, ``sample`` is the type of sample that the function returns. ``word``
    are further fields of ``Metric``, such as the ends of its range, ``lowest`` and ``highest``. The default of ``task``
    is ``"classification"`` for a metric of labels or outputs, and any task for the others.
    """

    def declare(function: Callable[..., Measurement]) -> MetricFunction:
        parameters = set(inspect.signature(function).parameters)
        unknown = parameters - SUBJECTS - {"percentile"}
        if unknown:
            raise TypeError(f"metric {name!r} asks for {sorted(unknown)}; there are {sorted(SUBJECTS)}")
        default = {
            "task": "classification" if parameters & TASK_SUBJECTS else "",
            "sampled": sample not in (Exact, Repeats),
        }
        meaning = Metric(name, dimension, direction, frozenset(stages), **default | word)
        if direction not in ("higher", "lower"):
            raise TypeError(f"metric {name!r}: its direction is 'higher' or 'lower', not {direction!r}")
        if isinstance(stages, str) or not meaning.stages:
            raise TypeError(f"metric {name!r}: its stages are a list of sections of a spec, not {stages!r}")
        if meaning.percentiles != ("percentile" in parameters):
            raise TypeError(f"metric {name!r}: percentiles=True and a parameter `percentile` go together")
        return MetricFunction(meaning, frozenset(parameters & SUBJECTS), sample, function)

    return declare
