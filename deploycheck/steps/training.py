"""``training``: every seed trained, and the weights of the one that is best on validation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from deploycheck.language.spec import Train
from deploycheck.ref import Ref, Source
from deploycheck.stages import training
from deploycheck.stages.training import TrainingReport
from deploycheck.steps.artifact import ARTIFACT
from deploycheck.steps.data import DATA
from deploycheck.steps.found import found_by, overlaid, search_of
from deploycheck.steps.initial import InitialModel, initial_model
from deploycheck.steps.kind import TRAINED, Making, Metadata, StepKind, Subject, section_of
from deploycheck.steps.weights import WEIGHTS
from deploycheck.store import Artifact

if TYPE_CHECKING:
    from deploycheck.check import Check
    from deploycheck.extensions import Extensions
    from deploycheck.language import Spec
    from deploycheck.stages.data import Dataset
    from deploycheck.stages.model import Model
    from deploycheck.stages.train import Job
    from deploycheck.steps.trained import Config

TRAINING = Ref("training")


class TrainingSettings(InitialModel):
    """What decides a training: the model, and how it is trained."""

    train: Train

    @property
    def first(self) -> Config:
        """What the model of the first seed is."""
        return self.config(self.train.seeds[0])


def _report(artifact: Artifact, variant: str | None) -> TrainingReport:
    del variant
    return training.read(artifact.path)


class TrainingStep(StepKind):
    """Its artifact is a trained model (``steps/trained.py``) and a report of every epoch."""

    name = "training"
    product = True
    isolated = True
    settings_type = TrainingSettings
    subjects: Mapping[str, Subject] = {"training": Subject(_report)}

    def ref_for(self, variant: str | None) -> Ref | None:
        """Return the one step."""
        del variant
        return TRAINING

    def stages(self, spec: Spec) -> Iterable[tuple[str, str | None, Ref]]:
        """Yield the train stage."""
        if spec.train.trains:
            yield "train", None, TRAINING

    def needs(self, spec: Spec, ref: Ref, extensions: Extensions) -> Mapping[str, Ref]:
        """Return the data, the weights that the training starts from, and the search for its settings, if there are."""
        del ref, extensions
        return {"data": DATA, **start_of(spec), **search_of(spec)}

    def settings(self, spec: Spec, ref: Ref, checks: Sequence[Check]) -> TrainingSettings:
        """Return the model and train sections; what is expected of the model doesn't change the training."""
        del ref, checks
        return TrainingSettings(**initial_model(spec), train=spec.train.model_copy(update={"expect": {}}))

    def sources(self, settings: TrainingSettings) -> Iterable[Source]:
        """Yield the model's code, the preprocessing steps and the task."""
        return settings.sources()

    def make(self, making: Making) -> Metadata:
        """Train every seed; keep the weights of the one that is best on validation."""
        from deploycheck.stages import data, train
        from deploycheck.steps import trained

        settings = overlaid(making.settings, found_by(making.inputs))
        seeds = settings.train.seeds
        dataset = data.read(making.inputs["data"].path)
        config = settings.first
        job = job_of(settings, dataset, making.extensions)
        job = replace(job, labels={"test": dataset.splits["test"].labels})

        build = builder_of(config, dataset, making)
        runs = train.train(build, job, seeds, making.scratch, making.progress)
        best, report = train.best_run(runs), train.report_of(runs)
        model = trained.with_arrays(build(seeds[0]), best.params, best.state)
        trained.write(trained.Trained(config, model, dataset.fitted), making.out)
        training.write(report, making.out)
        return {"deployed": report.spread}


def job_of(settings: TrainingSettings, dataset: Dataset, extensions: Extensions) -> Job:
    """Return what all runs of a training share; the test split is not needed for it."""
    from deploycheck.stages.recipe import recipe_of
    from deploycheck.stages.train import Job
    from deploycheck.steps.trained import prepared_examples

    recipe, task = recipe_of(settings.train), extensions.tasks[settings.task]
    return Job(
        examples=prepared_examples(settings.first, dataset, extensions),
        task=task,
        recipe=recipe,
        loss=task.losses[recipe.loss],
    )


def start_of(spec: Spec) -> Mapping[str, Ref]:
    """Return the weights that the training starts from, by their role; nothing where the spec names none."""
    return {"start": given_of(spec)} if spec.model.weights or spec.model.artifact else {}


def given_of(spec: Spec) -> Ref:
    """Return the step whose artifact is the model as the spec gives it, before any training."""
    return ARTIFACT if spec.model.artifact else WEIGHTS


def builder_of(config: Config, dataset: Dataset, making: Making) -> Callable[[int], Model]:
    """Return what builds the model for a seed, with the weights that the training starts from, if there are."""
    from deploycheck.steps import trained

    start = making.inputs.get("start")
    weights = trained.read(start, making.extensions).model.weights if start else {}

    def build(seed: int) -> Model:
        model = trained.build(config, dataset.fitted, making.extensions, seed)
        return model.with_weights(weights) if weights else model

    return build


def source_of(spec: Spec, variant: str) -> Ref:
    """Return the step whose artifact holds a variant's weights."""
    if variant == TRAINED:
        return TRAINING if spec.train.trains else given_of(spec)
    section = section_of(spec, variant)
    if section.search:
        return Ref("variant_search", (variant,))
    return Ref("variant", (variant,)) if section.method else source_of(spec, section.source or TRAINED)
