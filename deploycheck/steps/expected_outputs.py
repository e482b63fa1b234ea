"""``expected_outputs[V]``: the outputs of the model in memory on the test split, which its server should give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from deploycheck.language.fields import Section
from deploycheck.ref import Ref, Source
from deploycheck.steps.data import DATA
from deploycheck.steps.kind import BASELINE, Making, Metadata, StepKind
from deploycheck.steps.outputs import OUTPUTS
from deploycheck.steps.training import source_of
from deploycheck.steps.variant import uses_of

if TYPE_CHECKING:
    from deploycheck.check import Check
    from deploycheck.extensions import Extensions
    from deploycheck.language import Spec

BATCH = 64
"""How many examples the model computes at a time."""


class ExpectedOutputsSettings(Section):
    """The code that puts the model together."""

    uses: tuple[tuple[str, str], ...]


class ExpectedOutputsStep(StepKind):
    """It is made from the weights, not from the export, so that a fault of the export is not in both."""

    name = "expected_outputs"
    isolated = True
    settings_type = ExpectedOutputsSettings

    def ref_for(self, variant: str | None) -> Ref | None:
        """Return the step for a variant; the baseline has none, because its code may be gone."""
        return Ref(self.name, (variant,)) if variant not in (None, BASELINE) else None

    def needs(self, spec: Spec, ref: Ref, extensions: Extensions) -> Mapping[str, Ref]:
        """Return the data and the step that has the weights."""
        del extensions
        return {"data": DATA, "weights": source_of(spec, ref.of[0])}

    def settings(self, spec: Spec, ref: Ref, checks: Sequence[Check]) -> ExpectedOutputsSettings:
        """Return the code that puts the model together."""
        del checks
        return ExpectedOutputsSettings(uses=uses_of(spec, ref.of[0]))

    def sources(self, settings: ExpectedOutputsSettings) -> Iterable[Source]:
        """Yield the code that puts the model together."""
        yield from (Source(kind, name) for kind, name in settings.uses)

    def make(self, making: Making) -> Metadata:
        """Compute the outputs of the model in memory on the test split."""
        from deploycheck.stages import data
        from deploycheck.stages.model import predictor
        from deploycheck.steps import trained
        from deploycheck.store.arrays import write_arrays

        network = trained.network(trained.read(making.inputs["weights"], making.extensions), making.extensions)
        inputs = data.read(making.inputs["data"].path).splits["test"].inputs
        write_arrays(predictor(network.apply, BATCH)(network.weights, inputs), making.out / OUTPUTS)
        return {"weights": making.inputs["weights"].digest}
