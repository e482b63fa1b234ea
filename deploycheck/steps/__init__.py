"""The kinds of steps, one file each, in the order in which a spec's stages run."""

from __future__ import annotations

from collections.abc import Mapping

from deploycheck.steps.artifact import ArtifactStep
from deploycheck.steps.baseline import BaselineStep
from deploycheck.steps.comparison import ComparisonStep
from deploycheck.steps.data import DataStep
from deploycheck.steps.expected_outputs import ExpectedOutputsStep
from deploycheck.steps.forms import FormsStep
from deploycheck.steps.kind import StepKind
from deploycheck.steps.load import LoadStep
from deploycheck.steps.model import ModelStep
from deploycheck.steps.noise import NoiseStep
from deploycheck.steps.outputs import OutputsStep
from deploycheck.steps.properties import PropertiesStep, in_memory, served
from deploycheck.steps.search import SearchStep
from deploycheck.steps.training import TrainingStep
from deploycheck.steps.variant import VariantStep
from deploycheck.steps.variant_search import VariantSearchStep
from deploycheck.steps.weights import WeightsStep

STEP_KINDS: Mapping[str, StepKind] = {
    kind.name: kind
    for kind in (
        DataStep(),
        WeightsStep(),
        ArtifactStep(),
        SearchStep(),
        TrainingStep(),
        VariantStep(),
        VariantSearchStep(),
        ModelStep(),
        OutputsStep(),
        ExpectedOutputsStep(),
        PropertiesStep("compress", in_memory),
        LoadStep(),
        ComparisonStep(),
        PropertiesStep("serve", served),
        BaselineStep(),
        NoiseStep(),
        FormsStep(),
    )
}
"""Every kind by its name."""

__all__ = ["STEP_KINDS", "StepKind"]
