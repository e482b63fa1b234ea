"""The runner: steps to artifacts, checks to measurements."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploycheck.checks import MetricFunction
from deploycheck.checks.own import own_metric
from deploycheck.errors import DeploycheckError
from deploycheck.language.threshold import RELATIVE
from deploycheck.plan import BASELINE, TRAINED, Check, Plan, Step, is_difference
from deploycheck.runner.code import load_object
from deploycheck.runner.extensions import Extensions
from deploycheck.runner.machine import Machine
from deploycheck.runner.registries import open_registry
from deploycheck.runner.steps import ANSWERS, MAKERS, Work, measure_load
from deploycheck.serving import report
from deploycheck.store import Artifact, Building, Store, fingerprint, open_artifact
from deploycheck.verdict import Measurement, Paired, RelativeDrop, Sample, WorstOf, ratio_of, sample_size, value_of

if TYPE_CHECKING:
    from deploycheck.stages.examples import Examples

RUNS_KEPT = 5
RENEW_BEFORE = timedelta(days=90)
"""An exported program that can be loaded for less than this is exported anew."""
ANEW_IN_EACH_RUN = frozenset({"load", "duel", "noise"})
"""Kinds of steps whose result is of one run: what is timed is never taken from another."""


class StepFailed(DeploycheckError):
    """A step could not be done; the first check that needed it carries this."""


class NotReached(DeploycheckError):
    """A check could not be looked at: a step it needs failed, which is reported elsewhere."""


class NoBaseline(DeploycheckError):
    """A check compares with what is promoted now, and nothing is."""


@dataclass(frozen=True)
class Done:
    """A step that is done: its artifact, whether it was found done, and what it took."""

    artifact: Artifact
    reused: bool
    seconds: float


class Runner:
    """One run's work, in one process. Several processes of a run share its store and its folder.

    ``run`` is the run's id; ``report`` is given lines of progress.
    """

    def __init__(
        self, root: Path, cache: Path, run: str, extensions: Extensions, report: Callable[[str], None]
    ) -> None:
        self.root = root
        self.extensions = extensions
        self.report = report
        self.cache = cache
        self.store = Store(cache / "store")
        self.folder = cache / "runs" / run
        self.of_this_run = Store(self.folder)
        self.machine = Machine(self.folder, report)
        self._done: dict[str, Done] = {}
        self._failed: dict[str, str] = {}
        self._subjects: dict[tuple[str, str], Any] = {}

    def step(self, plan: Plan, name: str) -> Done:
        """Return a step done: found in the store, or made now with all it needs.

        Raises ``StepFailed`` the first time it fails in this run, ``NotReached`` from then on and where another
        step failed before it.
        """
        known = f"{plan.id}: {name}"
        if known in self._failed:
            raise NotReached(f"not reached: {self._failed[known]} failed")
        if known not in self._done:
            try:
                self._done[known] = self._make(plan, plan.steps[name])
            except NoBaseline:
                raise
            except NotReached as error:
                self._failed[known] = error.what.removeprefix("not reached: ").removesuffix(" failed")
                raise
            except Exception as error:
                self._failed[known] = name
                where = known if not isinstance(error, DeploycheckError) else error.where or known
                hint = error.hint if isinstance(error, DeploycheckError) else ""
                first = next(iter(str(error).splitlines()), "")
                what = error.what if isinstance(error, DeploycheckError) else f"{type(error).__name__}: {first}"
                raise StepFailed(what, where=where, hint=hint) from error
        return self._done[known]

    def _make(self, plan: Plan, step: Step) -> Done:
        if step.name == f"model[{BASELINE}]":
            return Done(self._baseline(plan), reused=True, seconds=0.0)
        inputs = {name: self.step(plan, name).artifact for name in step.needs}
        work = Work(plan, step, inputs, self.root, self.extensions, self.report, self.machine)
        if step.kind in ANEW_IN_EACH_RUN:
            return self._find_or_make(work, self.of_this_run)
        with self.machine.working():
            return self._find_or_make(work, self.store)

    def _baseline(self, plan: Plan) -> Artifact:
        """Return what the registry's alias points at now."""
        target = plan.spec.promote
        if target is None:
            raise DeploycheckError("there is no baseline without a `promote`", where=plan.id)
        registry = open_registry(target.registry, self.root, self.cache, self.extensions)
        version = registry.current(target.model, target.to)
        if version is None:
            raise NoBaseline(f"nothing is promoted as {target.model}@{target.to} yet: there is no baseline")
        return open_artifact(version.path)

    def _find_or_make(self, work: Work, store: Store) -> Done:
        step, key = work.step, _key(work)
        make, _ = MAKERS[step.kind]
        marker = self.folder / "failed" / key
        if marker.exists():
            raise NotReached(f"not reached: {marker.read_text()} failed")

        def build(building: Building) -> Mapping[str, Any]:
            if marker.exists():  # in another process, while this one waited
                raise NotReached(f"not reached: {marker.read_text()} failed")
            began = time.monotonic()
            try:
                meta = make(work, building)
            except Exception:
                marker.parent.mkdir(parents=True, exist_ok=True)
                marker.write_text(step.name)
                raise
            return {**meta, "seconds": round(time.monotonic() - began, 3)}

        began = time.monotonic()
        artifact, reused = store.get_or_build(
            step.kind, key, build, usable=_lasts,
            on_wait=lambda: self.report(f"{step.name}: another process is making it"),
        )  # fmt: skip
        return Done(artifact, reused, time.monotonic() - began)

    def found(self, plan: Plan, name: str) -> Artifact | None:
        """Return the artifact of a step that needs no other, if it lies in the store; it isn't made here."""
        step = plan.steps[name]
        work = Work(plan, step, {}, self.root, self.extensions, self.report, self.machine)
        return self.store.find(step.kind, _key(work))

    def measure(self, plan: Plan, check: Check) -> Measurement:
        """Return what a check's metric measures, doing the steps it needs first."""
        metric = self.metric_of(plan, check)
        if "load" in metric.subjects and check.against:
            duel = report.read(self.step(plan, check.needs[0]).artifact.path)
            return measure_load(metric, check, *(duel[name] for name in (check.variant or "", check.against)))
        given = self._given(plan, check, metric.subjects, check.variant)
        with self.machine.working():
            one = check.against is None or is_difference(metric.subjects)
            other = given if one else self._given(plan, check, metric.subjects, check.against)
            return measure_examples(metric, check, self._examples(plan, check), given, other)

    def metric_of(self, plan: Plan, check: Check) -> MetricFunction:
        """Return the metric of a check: one that is installed, or the spec's own."""
        own = plan.spec.metrics.get(check.family)
        if own is None:
            return self.extensions.metrics[check.family]
        return own_metric(check.family, own, load_object(own.use, self.root, check.id), check.id)

    def _given(self, plan: Plan, check: Check, subjects: frozenset[str], variant: str | None) -> dict[str, Any]:
        """Return what a metric looks at, by the name of its parameter."""
        given = {subject: self._subject(plan, subject, variant, check.against) for subject in subjects}
        return given if check.percentile is None else {**given, "percentile": check.percentile}

    def _examples(self, plan: Plan, check: Check) -> Examples | None:
        """Return the test examples, where a check cuts them into slices."""
        if check.slices is None:
            return None
        test: Examples = self._subject(plan, "dataset", None, None).splits["test"]
        return test

    def artifact_of(self, plan: Plan, variant: str | None) -> Artifact | None:
        """Return the exported artifact of a variant, if this run has it."""
        done = self._done.get(f"{plan.id}: model[{variant}]")
        return done.artifact if done else None

    def steps_done(self, plan: Plan) -> dict[str, Done]:
        """Return the plan's steps that this process did or found done."""
        return {name: self._done[known] for name in plan.steps if (known := f"{plan.id}: {name}") in self._done}

    def _subject(self, plan: Plan, name: str, variant: str | None, against: str | None) -> Any:
        """Return what a metric looks at, by the name of its parameter; read once for all checks that ask."""
        variant = against or TRAINED if name.startswith("reference_") else variant
        known = (plan.id, f"{name}[{variant}]")
        if known not in self._subjects:
            if self._subjects and next(iter(self._subjects))[0] != plan.id:
                self._subjects.clear()  # the next spec: what the last one needed is not asked for again
            self._subjects[known] = self._read(plan, name.removeprefix("reference_"), variant)
        return self._subjects[known]

    def _read(self, plan: Plan, name: str, variant: str | None) -> Any:
        from deploycheck.stages import data, training

        def path(step: str) -> Path:
            return self.step(plan, step).artifact.path

        match name:
            case "dataset":
                return data.read(path("data"))
            case "labels":
                return data.read(path("data")).splits["test"].labels
            case "training":
                return training.read(path("training"))
            case "artifact":
                return self.step(plan, f"model[{variant}]").artifact
            case "outputs":
                from safetensors.numpy import load_file

                return load_file(path(f"outputs[{variant}]") / ANSWERS)["outputs"]
            case _:
                return report.read(path(f"load[{variant}]"))[variant or ""]


def measure_examples(
    metric: MetricFunction, check: Check, examples: Examples | None, given: Mapping[str, Any], other: Mapping[str, Any]
) -> Measurement:
    """Return what a metric measures of what it is ``given``, or of that relative to ``other``.

    Where the check has slices, it is measured on each of those of ``examples``.
    """
    first = _sliced(metric, check, examples, given)
    if check.against is None or is_difference(metric.subjects):
        return _in_unit(first, check)
    second = _sliced(metric, check, examples, other)
    parts = second.sample.slices.values() if isinstance(second.sample, WorstOf) else (second.sample,)
    value = min(map(value_of, parts), default=math.nan)
    bad = f"{check.against} comes to {value:.4g}: a share of what isn't positive says nothing" if value <= 0 else ""
    invalid = next(filter(None, (first.invalid, second.invalid, bad)), "")
    return replace(first, sample=ratio_of(first.sample, second.sample), invalid=invalid)


def _sliced(metric: MetricFunction, check: Check, examples: Examples | None, given: Mapping[str, Any]) -> Measurement:
    """Measure on all examples, or on each slice of them."""
    if check.slices is None or examples is None:
        return metric.measure(**given)
    found = {
        name: metric.measure(**{subject: array[rows] for subject, array in given.items()})
        for name, rows in examples.slices(check.slices.by, f"{check.id}: slices").items()
    }
    samples = {name: part.sample for name, part in found.items()}
    lowest = metric.word.direction == "higher"
    defined = {name: value for name in found if not math.isnan(value := value_of(samples[name]))}
    worst = (min if lowest else max)(defined or found, key=lambda name: defined.get(name, 0.0))
    invalid = next((part.invalid for part in found.values() if part.invalid), "")
    note = f"worst in {check.slices.by} {worst}, of {sample_size(samples[worst]):,} examples"
    return Measurement(WorstOf(samples, lowest, check.slices.at_least), note, invalid)


def _key(work: Work) -> str:
    """Return a step's address: a digest of everything it is decided by."""
    step = work.step
    _, decided_by = MAKERS[step.kind]
    made_from = {name: work.inputs[name].digest for name in step.needs}
    return fingerprint({"step": step.kind, "made from": made_from, **decided_by(work)})


def _in_unit(measurement: Measurement, check: Check) -> Measurement:
    """Return a drop relative to what it is a drop from, where the threshold's unit says so."""
    if check.threshold is None or check.threshold.unit != RELATIVE:
        return measurement
    sample = measurement.sample
    if isinstance(sample, WorstOf):
        parts = {name: _relative(part, check) for name, part in sample.slices.items()}
        return replace(measurement, sample=replace(sample, slices=parts))
    return replace(measurement, sample=_relative(sample, check))


def _relative(sample: Sample, check: Check) -> RelativeDrop:
    if not isinstance(sample, Paired):
        raise DeploycheckError(f"{check.metric} can't be told in {RELATIVE}", where=check.id, hint="use pp")
    return RelativeDrop(sample)


def _lasts(artifact: Artifact) -> bool:
    """Whether an artifact can be loaded for long enough to be worth shipping; all but exports last for ever."""
    until = artifact.meta.get("loadable_until")
    return until is None or date.fromisoformat(until) >= datetime.now(UTC).date() + RENEW_BEFORE


def prune_runs(cache: Path) -> None:
    """Remove the folders of all but the latest runs."""
    folders = sorted((cache / "runs").glob("*/"), key=lambda folder: folder.stat().st_mtime)
    for folder in folders[:-RUNS_KEPT]:
        shutil.rmtree(folder, ignore_errors=True)
