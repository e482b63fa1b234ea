"""``model[V]``: variant V exported for a runtime, with its preprocessing: what is served and promoted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from deploycheck.errors import located
from deploycheck.language.fields import Section
from deploycheck.ref import Ref, Source
from deploycheck.steps.kind import BASELINE, TRAINED, Making, Metadata, StepKind, Subject, made_variants, runtime_of
from deploycheck.steps.training import source_of
from deploycheck.steps.variant import uses_of
from deploycheck.store import Artifact, write_lifetime

if TYPE_CHECKING:
    from deploycheck.check import Check
    from deploycheck.extensions import Extensions
    from deploycheck.language import Spec


class ModelSettings(Section):
    """The name that the server answers to, the runtime, and the code that puts the model together."""

    model: str
    runtime: str
    uses: tuple[tuple[str, str], ...]


def artifact_itself(artifact: Artifact, variant: str | None) -> Artifact:
    """Return the artifact, for metrics of what would be shipped."""
    del variant
    return artifact


class ModelStep(StepKind):
    """Its artifact can be served without the user's code."""

    name = "model"
    product = True
    isolated = True
    settings_type = ModelSettings
    subjects: Mapping[str, Subject] = {"artifact": Subject(artifact_itself, per_variant=True)}

    def ref_for(self, variant: str | None) -> Ref | None:
        """Return the step that exports a variant; the baseline was exported by an earlier run."""
        return None if variant in (None, BASELINE) else Ref(self.name, (str(variant),))

    def stages(self, spec: Spec) -> Iterable[tuple[str, str | None, Ref]]:
        """Yield the stage that makes each variant."""
        for variant in made_variants(spec):
            yield *stage_of(variant), Ref(self.name, (variant,))

    def needs(self, spec: Spec, ref: Ref, extensions: Extensions) -> Mapping[str, Ref]:
        """Return the step that has the variant's weights."""
        del extensions
        return {"weights": source_of(spec, ref.of[0])}

    def settings(self, spec: Spec, ref: Ref, checks: Sequence[Check]) -> ModelSettings:
        """Return the spec's name, and the variant's runtime."""
        del checks
        (variant,) = ref.of
        return ModelSettings(model=spec.name, runtime=runtime_of(spec, variant), uses=uses_of(spec, variant))

    def sources(self, settings: ModelSettings) -> Iterable[Source]:
        """Yield the runtime, and the code that puts the model together."""
        yield Source("runtimes", settings.runtime)
        yield from (Source(kind, name) for kind, name in settings.uses)

    def make(self, making: Making) -> Metadata:
        """Put the preprocessing before the model, and export both as one program."""
        from deploycheck.steps import trained

        settings: ModelSettings = making.settings
        source = trained.read(making.inputs["weights"], making.extensions)
        runtime = making.extensions.runtimes[settings.runtime]
        with located(settings.runtime):
            runtime.export(
                trained.network(source, making.extensions),
                trained.raw_inputs(source.config, making.extensions),
                settings.model,
                making.out,
            )
        today = datetime.now(UTC).date()
        if runtime.lasts:
            write_lifetime(making.out, today + runtime.lasts)
        return {"exported": today.isoformat()}


def stage_of(variant: str) -> tuple[str, str | None]:
    """Return the stage that makes a variant: its section, and the variant where the stage's name shows it."""
    return ("train", None) if variant == TRAINED else ("compress", variant)
