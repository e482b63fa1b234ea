"""``outputs[V]``: the outputs of V's exported artifact on the test split."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from deploycheck.errors import DeploycheckError
from deploycheck.language.fields import Section
from deploycheck.ref import Ref, Source
from deploycheck.steps.data import DATA, TEST
from deploycheck.steps.kind import BASELINE, Making, Metadata, StepKind, Subject, made_variants, runtime_of
from deploycheck.steps.model import stage_of
from deploycheck.store import Artifact

if TYPE_CHECKING:
    from deploycheck.check import Check
    from deploycheck.extensions import Extensions
    from deploycheck.language import Spec

OUTPUTS = "outputs.safetensors"
FAILED = "the exported artifact can't answer the test split"
DEPENDS = (
    "normalise by statistics of the training, not by those of the batch; in inference nothing may be random, or be "
    "computed along the batch"
)


def read_outputs(artifact: Artifact) -> dict[str, Any]:
    """Return stored outputs by name, each ``[n, ...]``."""
    from safetensors.numpy import load_file

    outputs: dict[str, Any] = load_file(artifact.file(OUTPUTS))
    return outputs


def main_output(artifact: Artifact, variant: str | None) -> Any:
    """Return the first of the outputs that the step's metadata lists: the one that metrics are given."""
    del variant
    return read_outputs(artifact)[artifact.meta["outputs"][0]]


class OutputsSettings(Section):
    """The runtime, whose engine computes the outputs; the task, and the variant that answers."""

    runtime: str
    task: str
    variant: str


class OutputsStep(StepKind):
    """A process of its own computes them, because a faulty artifact may crash it."""

    name = "outputs"
    isolated = True
    settings_type = OutputsSettings
    subjects: Mapping[str, Subject] = {"outputs": Subject(main_output, per_example=True, per_variant=True)}

    def ref_for(self, variant: str | None) -> Ref | None:
        """Return the step for a variant, or for the baseline."""
        return Ref(self.name, (variant,)) if variant else None

    def stages(self, spec: Spec) -> Iterable[tuple[str, str | None, Ref]]:
        """Yield the stage that makes each variant: it completes only when the artifact gives outputs."""
        for variant in made_variants(spec):
            yield *stage_of(variant), Ref(self.name, (variant,))

    def needs(self, spec: Spec, ref: Ref, extensions: Extensions) -> Mapping[str, Ref]:
        """Return the data and the exported model."""
        del spec, extensions
        return {"data": DATA, "model": exported(ref.of[0])}

    def settings(self, spec: Spec, ref: Ref, checks: Sequence[Check]) -> OutputsSettings:
        """Return the variant's runtime and the task: the input artifacts decide the rest."""
        del checks
        return OutputsSettings(runtime=runtime_of(spec, ref.of[0]), task=spec.task, variant=ref.of[0])

    def sources(self, settings: OutputsSettings) -> Iterable[Source]:
        """Yield the runtime and the task."""
        yield Source("runtimes", settings.runtime)
        yield Source("tasks", settings.task)

    def make(self, making: Making) -> Metadata:
        """Compute the exported artifact's outputs on the test split; refuse outputs that depend on their batch.

        Those of the baseline are not refused: it was promoted by an earlier run.
        """
        from deploycheck.serving.invariance import SIZES, find_dependence
        from deploycheck.serving.opening import open_compiled
        from deploycheck.serving.predict import BATCH, predict

        artifact, examples, answers = making.inputs["model"], making.inputs["data"].file(TEST), making.out / OUTPUTS
        open_engine, depends = partial(open_compiled, artifact.path, making.extensions.files), ""
        is_baseline = making.settings.variant == BASELINE
        classes = making.extensions.tasks[making.settings.task].word.labels == "classes"
        try:
            engine = open_engine((BATCH,) if is_baseline else SIZES)
            predict(engine, examples, answers)
            if not is_baseline:
                depends = find_dependence(engine, open_engine, examples, answers, classes=classes)
        except DeploycheckError as error:
            raise DeploycheckError(f"{FAILED}: {error.where}: {error.what}", hint=error.hint) from error
        except Exception as error:  # the artifact may be damaged, and a plugin's runtime may raise anything
            traceback.print_exc()
            first = next(iter(str(error).splitlines()), "")
            raise DeploycheckError(f"{FAILED}: {type(error).__name__}: {first}") from error
        if depends:
            raise DeploycheckError(depends, hint=DEPENDS)
        from deploycheck.serving.signature import SIGNATURE, read_signature

        signature = read_signature(artifact.file(SIGNATURE))
        return {"model": artifact.digest, "outputs": [tensor.name for tensor in signature.outputs]}


def exported(variant: str) -> Ref:
    """Return the step whose artifact is a variant's exported model."""
    return Ref(BASELINE) if variant == BASELINE else Ref("model", (variant,))
