"""``model[V]``: variant V exported for a runtime, with its preprocessing: what is served and promoted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
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
    from deploycheck.steps.trained import Trained


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
        today = export(source, settings.runtime, settings.model, making.out, making.extensions)
        return {"exported": today.isoformat()}


def export(source: Trained, runtime: str, model: str, folder: Path, extensions: Extensions) -> date:
    """Write into ``folder`` what is served as ``model``, and return today's day, from which it can be loaded."""
    from deploycheck.steps import trained

    chosen = extensions.runtimes[runtime]
    with located(runtime):
        chosen.export(trained.network(source, extensions), trained.raw_inputs(source, extensions), model, folder)
    today = datetime.now(UTC).date()
    before = source.model.exported
    # A program that was exported before is part of this one, and is no newer for it.
    ends = [before.loadable_until] if before and before.loadable_until else []
    ends += [today + chosen.lasts] if chosen.lasts else []
    if ends:
        write_lifetime(folder, min(ends))
    return today


def stage_of(variant: str) -> tuple[str, str | None]:
    """Return the stage that makes a variant: its section, and the variant where the stage's name shows it."""
    return ("train", None) if variant == TRAINED else ("compress", variant)
