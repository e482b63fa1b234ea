"""``comparison[V,W]``: V and W served at once and measured in turn, for a check of V relative to W."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from deploycheck.check import Check
from deploycheck.extensions import Extensions, Source
from deploycheck.language import Spec
from deploycheck.ref import Ref
from deploycheck.steps.data import DATA
from deploycheck.steps.kind import Making, Metadata, Subject
from deploycheck.steps.load import LoadSettings, bench_of, read_load, settings_of
from deploycheck.steps.outputs import exported


class ComparisonStep:
    """What disturbs the machine meanwhile disturbs both: their ratio is steadier than either."""

    name = "comparison"
    timed = True
    runs_user_code = False
    pairs = True
    settings_type = LoadSettings
    subjects: Mapping[str, Subject] = {"load": Subject(read_load, per_variant=True)}

    def ref_for(self, variant: str | None) -> Ref | None:
        """Return nothing: it is about two variants."""
        del variant
        return None

    def stages(self, spec: Spec) -> Iterable[tuple[str, str | None, Ref]]:
        """Yield nothing: only a check that compares needs it."""
        del spec
        return ()

    def needs(self, spec: Spec, ref: Ref, extensions: Extensions) -> Mapping[str, Ref]:
        """Return the data and both exported models."""
        del spec, extensions
        first, second = ref.of
        return {"data": DATA, "first": exported(first), "second": exported(second)}

    def settings(self, spec: Spec, ref: Ref, checks: Sequence[Check]) -> LoadSettings:
        """Return the serve section and the checks that compare."""
        return settings_of(spec, ref.of, checks)

    def sources(self, settings: LoadSettings) -> Iterable[Source]:
        """Yield nothing: it isn't found again in another run."""
        del settings
        return ()

    def make(self, making: Making) -> Metadata:
        """Serve both, and measure them in turn."""
        from deploycheck.serving.comparison import compare

        models = (making.inputs["first"], making.inputs["second"])
        first, second = zip(making.settings.variants, models, strict=True)
        compare(first, second, bench_of(making), making.out)
        return {"models": {first[0]: first[1].digest, second[0]: second[1].digest}}
