"""``load[V]``: variant V served by a process of its own, and measured under load."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deploycheck.checks.relative import relative
from deploycheck.errors import DeploycheckError
from deploycheck.language import Threshold
from deploycheck.language.fields import Section
from deploycheck.language.spec import Serve
from deploycheck.ref import Ref
from deploycheck.serving import load_report
from deploycheck.steps.data import DATA, TEST
from deploycheck.steps.kind import BASELINE, Making, Metadata, StepKind, Subject
from deploycheck.steps.outputs import exported, read_outputs
from deploycheck.store import Artifact

if TYPE_CHECKING:
    from deploycheck.check import Check
    from deploycheck.extensions import Extensions
    from deploycheck.language import Spec
    from deploycheck.serving.bench import Bench
    from deploycheck.serving.load_report import LoadReport
    from deploycheck.verdict import Measurement


class GoalSettings(Section):
    """One check that uses the load test, which stops as soon as all of them have passed or failed."""

    metric: str
    percentile: float | None
    threshold: Threshold
    against: str


class LoadSettings(Section):
    """The serve section and the checks on it; ``variants`` are what is served, by its name in the report."""

    variants: tuple[str, ...]
    serve: Serve
    confidence: float
    goals: tuple[GoalSettings, ...]


def read_load(artifact: Artifact, variant: str | None) -> LoadReport:
    """Return what a load test of a variant measured."""
    return load_report.read(artifact.path)[variant or ""]


class LoadStep(StepKind):
    """It is measured again in each run, because the machine may be in another state."""

    name = "load"
    timed = True
    settings_type = LoadSettings
    subjects: Mapping[str, Subject] = {"load": Subject(read_load, per_variant=True)}

    def ref_for(self, variant: str | None) -> Ref | None:
        """Return the load test of a variant; the baseline is measured only in a comparison."""
        return Ref(self.name, (variant,)) if variant not in (None, BASELINE) else None

    def stages(self, spec: Spec) -> Iterable[tuple[str, str | None, Ref]]:
        """Yield the serve stage of each variant that is served."""
        for variant in spec.serve.variants if spec.serve else ():
            yield "serve", variant, Ref(self.name, (variant,))

    def needs(self, spec: Spec, ref: Ref, extensions: Extensions) -> Mapping[str, Ref]:
        """Return the data, the exported model, and the outputs of the model in memory."""
        del spec, extensions
        return {"data": DATA, "model": exported(ref.of[0]), "expected": Ref("expected_outputs", ref.of)}

    def settings(self, spec: Spec, ref: Ref, checks: Sequence[Check]) -> LoadSettings:
        """Return the serve section and the checks on the load."""
        return settings_of(spec, ref.of, checks)

    def make(self, making: Making) -> Metadata:
        """Serve the artifact and measure it under load."""
        from deploycheck.serving.single import measure

        (variant,) = making.settings.variants
        model = making.inputs["model"]
        measure(variant, model, read_outputs(making.inputs["expected"]), bench_of(making), making.out)
        return {"model": model.digest}


def settings_of(spec: Spec, variants: tuple[str, ...], checks: Sequence[Check]) -> LoadSettings:
    """Return the settings of a step that serves variants and measures them."""
    if spec.serve is None:
        raise DeploycheckError("the spec has no `serve`")
    return LoadSettings(
        variants=variants,
        serve=spec.serve.model_copy(update={"expect": {}, "properties": ()}),
        confidence=spec.confidence,
        goals=tuple(
            GoalSettings(
                metric=check.family,
                percentile=check.percentile,
                threshold=check.threshold,
                against=check.against or "",
            )
            for check in checks
            if check.threshold is not None
        ),
    )


def bench_of(making: Making) -> Bench:
    """Return what a load test needs besides the models."""
    from deploycheck.serving.bench import Bench
    from deploycheck.serving.goals import Goal
    from deploycheck.stages import examples

    settings: LoadSettings = making.settings
    metrics = making.extensions.metrics
    return Bench(
        serve=settings.serve,
        scenario=making.extensions.scenarios[settings.serve.load.scenario],
        inputs=examples.read(making.inputs["data"].file(TEST)).inputs,
        goals=tuple(
            Goal(
                functools.partial(measure_load, metrics[goal.metric], goal.percentile, goal.against),
                goal.threshold,
                settings.confidence,
                metrics[goal.metric].sample,
            )
            for goal in settings.goals
        ),
        extensions=making.extensions.files,
        scratch=making.scratch,
        progress=making.progress,
    )


def measure_load(metric: Any, percentile: float | None, against: str, *loads: LoadReport) -> Measurement:
    """Return what a metric measures of one load, or of the first of two relative to the second, that of ``against``."""
    family = {} if percentile is None else {"percentile": percentile}
    first, *others = (metric.measure(load=load, **family) for load in loads)
    measured: Measurement = relative(first, others[0], against) if others else first
    return measured
