"""``data``: the examples loaded, split, and the preprocessing fitted on the training split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploycheck.errors import DeploycheckError
from deploycheck.language.fields import Arguments, Section
from deploycheck.language.spec import Input, Split
from deploycheck.ref import Ref, Source
from deploycheck.steps.kind import Making, Metadata, StepKind, Subject
from deploycheck.steps.project_files import find_file
from deploycheck.store import Artifact

if TYPE_CHECKING:
    from deploycheck.check import Check
    from deploycheck.language import Spec

DATA = Ref("data")
TEST = "test.safetensors"


class DataSettings(Section):
    """What decides the data: the loader and its arguments, the split, the preprocessing, the model's inputs."""

    load: str
    arguments: Arguments
    split: Split
    preprocess: tuple[tuple[str, Arguments], ...]
    input: dict[str, Input]
    task: str


def _dataset(artifact: Artifact, variant: str | None) -> Any:
    from deploycheck.stages import data

    del variant
    return data.read(artifact.path)


def _labels(artifact: Artifact, variant: str | None) -> Any:
    from deploycheck.stages import examples

    del variant
    return examples.read(artifact.file(TEST)).labels


class DataStep(StepKind):
    """The first step: it needs no other."""

    name = "data"
    isolated = True
    settings_type = DataSettings
    subjects: Mapping[str, Subject] = {"dataset": Subject(_dataset), "labels": Subject(_labels, per_example=True)}

    def ref_for(self, variant: str | None) -> Ref | None:
        """Return the one step."""
        del variant
        return DATA

    def stages(self, spec: Spec) -> Iterable[tuple[str, str | None, Ref]]:
        """Yield the data stage."""
        del spec
        yield "data", None, DATA

    def settings(self, spec: Spec, ref: Ref, checks: Sequence[Check]) -> DataSettings:
        """Return the data section, and the inputs that the model declares."""
        del ref, checks
        return DataSettings(
            load=spec.data.load,
            arguments=spec.data.arguments,
            split=spec.data.split,
            preprocess=preprocess_of(spec),
            input=spec.model.input,
            task=spec.task,
        )

    def sources(self, settings: DataSettings) -> Iterable[Source]:
        """Yield the loader, the preprocessing steps and the task."""
        yield Source("loaders", settings.load)
        yield from (Source("preprocessing", name) for name, _ in settings.preprocess)
        yield Source("tasks", settings.task)

    def make(self, making: Making) -> Metadata:
        """Load the examples, split them, fit the preprocessing."""
        from deploycheck.stages import data, examples, preprocess
        from deploycheck.steps.trained import preprocessing

        settings: DataSettings = making.settings
        making.progress("data: loading")
        load = making.extensions.loader(settings.load)
        arguments = _with_path(settings.arguments, making.extensions.root)
        task = making.extensions.tasks[settings.task]
        loaded = examples.as_examples(load(**arguments), tuple(settings.input), task)
        _check_inputs(loaded.inputs, settings.input)
        fractions = {name: getattr(settings.split, name) for name in examples.SPLITS}
        splits = examples.split(loaded, fractions, seed=settings.split.seed, stratify=settings.split.stratify)
        empty = [name for name, part in splits.items() if fractions[name] and not len(part)]
        if empty:
            raise DeploycheckError(f"no examples are left for {', '.join(empty)}, of {len(loaded)}")
        _check_labels(splits["train"].labels)
        steps = preprocessing(settings.preprocess, making.extensions)
        fitted = preprocess.fit_all(steps, splits["train"].inputs)
        data.write(data.Dataset(splits, fitted.arrays), making.out)
        return {"examples": {name: len(part) for name, part in splits.items()}, "remarks": list(fitted.remarks)}


def preprocess_of(spec: Spec) -> tuple[tuple[str, Arguments], ...]:
    """Return the names of a spec's preprocessing steps, each with its options."""
    return tuple(next(iter(entry.items())) for entry in spec.data.preprocess)


def _with_path(arguments: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """Return a loader's arguments. A ``path`` among them is looked up under the root; outside of it is an error."""
    given = arguments.get("path")
    if not isinstance(given, str):
        return dict(arguments)
    return {**arguments, "path": find_file(given, root)}


def _check_labels(labels: Any) -> None:
    if len(labels) and (labels == labels[0]).all():
        what = f"every label of the training split is {labels[0]}: there is nothing to learn"
        raise DeploycheckError(what, hint="check which column or array has the labels, and the split")


def _check_inputs(inputs: Mapping[str, Any], declared: Mapping[str, Input]) -> None:
    for name, part in declared.items():
        array = inputs[name]
        if (array.shape[1:], array.dtype.name) != (part.shape, part.dtype):
            raise DeploycheckError(
                f"the loader gives {name!r} as {array.dtype.name} {list(array.shape[1:])}, the model declares "
                f"{part.dtype} {list(part.shape)}",
                hint="convert it in the loader, or declare what it gives",
            )
