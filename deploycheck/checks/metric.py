"""How a metric is declared: one decorated function.

The function's parameters say what it looks at, by these names; the plan runs what makes them, and nothing else:

================== ==============================================================================
labels             the test split's class numbers, or with ``target="number"`` its numbers, ``[n]``
outputs            the variant's answers on the test split, as its exported artifact gives them: logits,
                   ``[n, classes]``, or one number each, ``[n, 1]``
reference_outputs  the same of what it is compared with: the trained model, or where the threshold says so the baseline
artifact           the variant's exported artifact
reference_artifact the exported artifact of what it is compared with
training           ``TrainingReport``: every seed's epochs, and which seed is deployed
dataset            ``Dataset``: the three splits
load               ``LoadReport``: what serving the variant under load was like
percentile         for a family such as ``latency``: the one that the spec names, 0..1
================== ==============================================================================
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from deploycheck.language.expect import SECTIONS
from deploycheck.language.vocabulary import Dimension, Metric
from deploycheck.verdict import Measurement

SUBJECTS = frozenset(
    {"labels", "outputs", "reference_outputs", "artifact", "reference_artifact", "training", "dataset", "load"}
)


@dataclass(frozen=True)
class MetricFunction:
    """A metric: its word in the language, what it looks at, and the function that measures it."""

    word: Metric
    subjects: frozenset[str]
    measure: Callable[..., Measurement]


def metric(
    name: str, *, dimension: Dimension, direction: str, stages: Iterable[str], **word: Any
) -> Callable[[Callable[..., Measurement]], MetricFunction]:
    """Declare a metric.

    ``dimension`` decides its units, ``direction`` is ``higher`` or ``lower`` (which is better), ``stages`` are
    the sections under whose ``expect`` it may stand. A metric of labels or outputs takes labels to be classes,
    unless ``target`` says that they are numbers.
    """

    def declare(function: Callable[..., Measurement]) -> MetricFunction:
        parameters = set(inspect.signature(function).parameters)
        unknown = parameters - SUBJECTS - {"percentile"}
        if unknown:
            raise TypeError(f"metric {name!r} asks for {sorted(unknown)}; there are {sorted(SUBJECTS)}")
        of_answers = parameters & {"labels", "outputs", "reference_outputs"}
        meaning = Metric(
            name, dimension, direction, frozenset(stages), **{"target": "class" if of_answers else ""} | word
        )
        if direction not in ("higher", "lower"):
            raise TypeError(f"metric {name!r}: its direction is 'higher' or 'lower', not {direction!r}")
        if not meaning.stages or not meaning.stages <= set(SECTIONS):
            raise TypeError(f"metric {name!r}: its stages are some of {list(SECTIONS)}, not {stages!r}")
        if meaning.percentiles != ("percentile" in parameters):
            raise TypeError(f"metric {name!r}: percentiles=True and a parameter `percentile` go together")
        return MetricFunction(meaning, frozenset(parameters & SUBJECTS), function)

    return declare
