"""``comparison[V,W]``: V and W served at the same time and measured in turn, for a check of V relative to W."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from deploycheck.ref import Ref
from deploycheck.steps.data import DATA
from deploycheck.steps.kind import Making, Metadata, StepKind, Subject
from deploycheck.steps.load import LoadSettings, bench_of, read_load, settings_of
from deploycheck.steps.outputs import exported

if TYPE_CHECKING:
    from deploycheck.check import Check
    from deploycheck.extensions import Extensions
    from deploycheck.language import Spec


class ComparisonStep(StepKind):
    """A disturbance of the machine affects both, so that their ratio varies less than either."""

    name = "comparison"
    timed = True
    pairs = True
    settings_type = LoadSettings
    subjects: Mapping[str, Subject] = {"load": Subject(read_load, per_variant=True)}

    def needs(self, spec: Spec, ref: Ref, extensions: Extensions) -> Mapping[str, Ref]:
        """Return the data and both exported models."""
        del spec, extensions
        first, second = ref.of
        return {"data": DATA, "first": exported(first), "second": exported(second)}

    def settings(self, spec: Spec, ref: Ref, checks: Sequence[Check]) -> LoadSettings:
        """Return the serve section and the checks that compare."""
        return settings_of(spec, ref.of, checks)

    def make(self, making: Making) -> Metadata:
        """Serve both, and measure them in turn."""
        from deploycheck.serving.comparison import compare

        models = (making.inputs["first"], making.inputs["second"])
        first, second = zip(making.settings.variants, models, strict=True)
        compare(first, second, bench_of(making), making.out)
        return {"models": {first[0]: first[1].digest, second[0]: second[1].digest}}
