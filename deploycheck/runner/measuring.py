"""Measuring: a check's metric applied to the artifacts that it reads, by slices, and relative to another model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deploycheck.check import Check
from deploycheck.checks import MetricFunction
from deploycheck.checks.own import own_metric
from deploycheck.checks.properties import property_metric
from deploycheck.checks.relative import in_unit, relative
from deploycheck.errors import located
from deploycheck.plan import REFERENCE, Plan
from deploycheck.ref import Ref
from deploycheck.runner.execute import Runner
from deploycheck.steps import STEP_KINDS
from deploycheck.steps.data import DATA
from deploycheck.verdict import (
    Measurement,
    Paired,
    Proportion,
    Sample,
    WorstOf,
    named,
    sample_size,
    value_of,
)

if TYPE_CHECKING:
    from deploycheck.stages.data import Dataset

Given = Mapping[str, Any]
"""What a metric's function is given, by the name of its parameter."""


class Subjects:
    """What metrics are given, read once for all checks; those of one spec at a time are kept."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self._plan = ""
        self._read: dict[tuple[str, Ref, str | None], Any] = {}

    def read(self, plan: Plan, parameter: str, ref: Ref, variant: str | None) -> Any:
        """Return the value of a metric's parameter, for a variant."""
        subject = parameter.removeprefix(REFERENCE)
        if self._plan != plan.id:
            self._read.clear()
            self._plan = plan.id
        known = (subject, ref, variant)
        if known not in self._read:
            artifact = self.runner.step(plan, ref).artifact
            self._read[known] = STEP_KINDS[ref.kind].subjects[subject].read(artifact, variant)
        return self._read[known]


def metric_of(check: Check, plan: Plan, runner: Runner) -> MetricFunction:
    """Return the metric of a check: one that is installed, the spec's own, or that of a property."""
    if check.property_name:
        return property_metric(check.metric, *check.reads)
    own = plan.spec.metrics.get(check.family)
    if own is None:
        return runner.extensions.metrics[check.family]
    return own_metric(check.family, own, runner.extensions.load_object(own.use))


def measure(check: Check, plan: Plan, subjects: Subjects) -> Measurement:
    """Return what a check's metric measures, doing the steps it needs first."""
    runner = subjects.runner
    for ref in check.needs:
        runner.step(plan, ref)
    with runner.machine.working(), located(check.id):
        metric = metric_of(check, plan, runner)
        given = {name: subjects.read(plan, name, ref, check.variant) for name, ref in check.reads.items()}
        other = {name: subjects.read(plan, name, ref, check.against) for name, ref in check.compared.items()}
        needs_splits = check.slices is not None or metric.word.over_classes
        dataset = subjects.read(plan, "dataset", DATA, None) if needs_splits else None
        return measure_given(metric, check, dataset, given=given, other=other)


def measure_given(
    metric: MetricFunction, check: Check, dataset: Dataset | None, *, given: Given, other: Given
) -> Measurement:
    """Return what a metric measures of what it is ``given``, relative to ``other`` unless that is empty.

    Where the check has slices, it is measured on each slice of the test split. ``dataset`` is needed there, and for a
    metric that compares classes.
    """
    first = _sliced(metric, check, dataset, given)
    if not other:
        return in_unit(first, check.threshold, check.metric)
    second = _sliced(metric, check, dataset, other)
    return relative(first, second, check.against or "")


def _sliced(metric: MetricFunction, check: Check, dataset: Dataset | None, given: Given) -> Measurement:
    """Measure on all examples, or on each slice of them; one without examples has an empty sample."""
    family = {} if check.percentile is None else {"percentile": check.percentile}
    untested = dataset.untested_labels() if dataset and metric.word.over_classes else []
    if check.slices is None or dataset is None:
        return _with_untested(metric.measure(**given, **family), untested)
    nothing: Sample = Paired(0, 0, 0) if metric.sample is Paired else Proportion(0, 0)
    found = {
        name: _with_untested(metric.measure(**{subject: array[rows] for subject, array in given.items()}), untested)
        if len(rows)
        else Measurement(nothing)
        for name, rows in dataset.slices(check.slices.by).items()
    }
    samples = {name: part.sample for name, part in found.items()}
    lowest = metric.word.direction == "higher"
    defined = {name: value for name in found if not math.isnan(value := value_of(samples[name]))}
    worst = (min if lowest else max)(defined or found, key=lambda name: defined.get(name, 0.0))
    invalid = next((part.invalid for part in found.values() if part.invalid), "")
    note = f"worst in {check.slices.by} {worst}, of {sample_size(samples[worst]):,} examples"
    unfit = next((part.unfit for part in found.values() if part.unfit), "")
    return Measurement(WorstOf(samples, lowest, check.slices.at_least), note, invalid=invalid, unfit=unfit)


def _with_untested(measurement: Measurement, labels: Sequence[str]) -> Measurement:
    """Return what a metric that compares classes measured, open because of the classes that no test example has."""
    sample = measurement.sample
    if not labels:
        return measurement
    if isinstance(sample, WorstOf):
        empty: dict[str, Sample] = dict.fromkeys(labels, Proportion(0, 0))
        return replace(measurement, sample=replace(sample, slices={**sample.slices, **empty}))
    which = f"class {labels[0]}" if len(labels) == 1 else f"the classes {named(labels)}"
    why = f"the test split has 0 examples of {which}, and other splits have some"
    return replace(measurement, invalid=measurement.invalid or why)
