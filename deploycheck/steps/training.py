"""``training``: every seed trained, and the weights of the one that is best on validation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deploycheck.language.fields import Arguments, ImportPath, Section
from deploycheck.language.spec import Input, Train
from deploycheck.ref import Ref, Source
from deploycheck.stages import training
from deploycheck.stages.training import TrainingReport
from deploycheck.steps.data import DATA, preprocess_of
from deploycheck.steps.kind import TRAINED, Making, Metadata, StepKind, Subject
from deploycheck.steps.weights import WEIGHTS
from deploycheck.store import Artifact

if TYPE_CHECKING:
    from deploycheck.check import Check
    from deploycheck.extensions import Extensions
    from deploycheck.language import Spec

TRAINING = Ref("training")


class TrainingSettings(Section):
    """What decides a training: the model, and how it is trained."""

    build: ImportPath
    arguments: Arguments
    input: dict[str, Input]
    task: str
    preprocess: tuple[tuple[str, Arguments], ...]
    train: Train


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
        """Return the data, and the weights that the training starts from, where the spec names some."""
        del ref, extensions
        return {"data": DATA, **({"start": WEIGHTS} if spec.model.weights else {})}

    def settings(self, spec: Spec, ref: Ref, checks: Sequence[Check]) -> TrainingSettings:
        """Return the model and train sections; what is expected of the model doesn't change the training."""
        del ref, checks
        return TrainingSettings(
            build=spec.model.build,
            arguments=spec.model.arguments,
            input=spec.model.input,
            task=spec.task,
            preprocess=preprocess_of(spec),
            train=spec.train.model_copy(update={"expect": {}}),
        )

    def sources(self, settings: TrainingSettings) -> Iterable[Source]:
        """Yield the model's code, the preprocessing steps and the task."""
        yield Source("models", settings.build)
        yield from (Source("preprocessing", name) for name, _ in settings.preprocess)
        yield Source("tasks", settings.task)

    def make(self, making: Making) -> Metadata:
        """Train every seed; keep the weights of the one that is best on validation."""
        from deploycheck.stages import data, train
        from deploycheck.stages.recipe import recipe_of
        from deploycheck.steps import trained

        settings: TrainingSettings = making.settings
        section, extensions = settings.train, making.extensions
        dataset = data.read(making.inputs["data"].path)
        config = trained.Config(
            build=settings.build,
            arguments=settings.arguments,
            input=settings.input,
            task=settings.task,
            seed=section.seeds[0],
            preprocess=settings.preprocess,
        )
        recipe, task = recipe_of(section), extensions.tasks[settings.task]
        examples = trained.prepared_examples(config, dataset, extensions)
        job = train.Job(
            examples=examples,
            task=task,
            recipe=recipe,
            loss=task.losses[recipe.loss],
            labels={"test": dataset.splits["test"].labels},
        )

        start = making.inputs.get("start")
        weights = trained.read(start, extensions).model.weights if start else {}

        def build(seed: int) -> Any:
            model = trained.build(config, dataset.fitted, extensions, seed)
            return model.with_weights(weights) if weights else model

        runs = train.train(build, job, section.seeds, making.scratch, making.progress)
        best, report = train.best_run(runs), train.report_of(runs)
        model = trained.with_arrays(build(section.seeds[0]), best.params, best.state)
        trained.write(trained.Trained(config, model, dataset.fitted), making.out)
        training.write(report, making.out)
        return {"deployed": report.spread}


def source_of(spec: Spec, variant: str) -> Ref:
    """Return the step whose artifact holds a variant's weights."""
    if variant != TRAINED:
        return Ref("variant", (variant,))
    return TRAINING if spec.train.trains else WEIGHTS
