"""``noise[V]``: V served twice and compared with itself, to find which differences this machine can't show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from deploycheck.ref import Ref
from deploycheck.steps.data import DATA
from deploycheck.steps.kind import Making, Metadata, StepKind
from deploycheck.steps.load import LoadSettings, bench_of, settings_of
from deploycheck.steps.outputs import exported

if TYPE_CHECKING:
    from deploycheck.check import Check
    from deploycheck.extensions import Extensions
    from deploycheck.language import Spec

SIDES = ("A", "B")
"""What the two servers of one artifact are called in the report."""


class NoiseStep(StepKind):
    """Only ``deploycheck noise`` needs it; no check does."""

    name = "noise"
    timed = True
    settings_type = LoadSettings

    def ref_for(self, variant: str | None) -> Ref | None:
        """Return the step for a variant."""
        return Ref(self.name, (variant,)) if variant else None

    def needs(self, spec: Spec, ref: Ref, extensions: Extensions) -> Mapping[str, Ref]:
        """Return the data and the exported model."""
        del spec, extensions
        return {"data": DATA, "model": exported(ref.of[0])}

    def settings(self, spec: Spec, ref: Ref, checks: Sequence[Check]) -> LoadSettings:
        """Return the serve section, without checks, so that the comparison takes all its rounds."""
        del ref, checks
        return settings_of(spec, SIDES, ())

    def make(self, making: Making) -> Metadata:
        """Serve the artifact twice, and measure one server against the other."""
        from deploycheck.serving.comparison import compare

        model = making.inputs["model"]
        first, second = SIDES
        compare((first, model), (second, model), bench_of(making), making.out)
        return {"model": model.digest}
