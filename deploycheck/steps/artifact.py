"""``artifact``: the model that the spec has as an ONNX file, or as a folder that was exported, before any training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploycheck.errors import located, needing_extra
from deploycheck.ref import Ref, Source
from deploycheck.steps.data import DATA
from deploycheck.steps.initial import InitialModel, initial_model
from deploycheck.steps.kind import Making, Metadata, StepKind
from deploycheck.steps.project_files import find_file

if TYPE_CHECKING:
    from pathlib import Path

    from deploycheck.check import Check
    from deploycheck.extensions import Extensions
    from deploycheck.language import Spec

ARTIFACT = Ref("artifact")
PROBABILITIES = (
    "it ends in Softmax, so its probabilities are taken as logits: the answers stay the same, but the loss, the "
    "calibration and a distillation are those of another model; export it without its last Softmax"
)


class ArtifactSettings(InitialModel):
    """The file or folder, with its digest, and what is asked of it."""

    artifact: str
    sha256: str | None
    seed: int


class ArtifactStep(StepKind):
    """Its artifact is a trained model (``steps/trained.py``)."""

    name = "artifact"
    product = True
    isolated = True
    settings_type = ArtifactSettings

    def stages(self, spec: Spec) -> Iterable[tuple[str, str | None, Ref]]:
        """Yield the train stage of a model that isn't trained here."""
        if spec.model.artifact and not spec.train.trains:
            yield "train", None, ARTIFACT

    def needs(self, spec: Spec, ref: Ref, extensions: Extensions) -> Mapping[str, Ref]:
        """Return the data, which has what the preprocessing learned."""
        del spec, ref, extensions
        return {"data": DATA}

    def settings(self, spec: Spec, ref: Ref, checks: Sequence[Check]) -> ArtifactSettings:
        """Return the model section."""
        del checks
        if spec.model.artifact is None:
            raise KeyError(ref)
        return ArtifactSettings(**initial_model(spec), sha256=spec.model.sha256, seed=spec.train.seeds[0])

    def sources(self, settings: ArtifactSettings) -> Iterable[Source]:
        """Yield the preprocessing steps and the task."""
        yield from settings.sources()

    def make(self, making: Making) -> Metadata:
        """Read the model, and see that its outputs fit the labels."""
        from deploycheck.stages import data, train, weights
        from deploycheck.steps import exported, trained

        settings: ArtifactSettings = making.settings
        extensions = making.extensions
        making.progress(f"train: reading {settings.artifact}")
        path = find_file(settings.artifact, extensions.root)
        with located(settings.artifact):
            file = _look_into_folder(path) if path.is_dir() else _look_into_file(path, settings.task, extensions)
            weights.check_digest(file.sha256, settings.sha256)
        dataset = data.read(making.inputs["data"].path)
        config = settings.config(settings.seed)
        model = trained.build(config, dataset.fitted, extensions, settings.seed)
        labels = {name: part.labels for name, part in dataset.splits.items() if len(part)}
        train.check_outputs(model, extensions.tasks[settings.task], labels)
        trained.write(trained.Trained(config, model, dataset.fitted), making.out)
        remarks = [f"model of {settings.artifact}{file.form}, sha256:{file.sha256[:12]}", *file.notes]
        if settings.preprocess and exported.has_preprocessing(model):
            remarks.append(exported.TWICE)
        return {"sha256": file.sha256, "remarks": remarks}


@dataclass(frozen=True)
class _File:
    """A file or folder that holds a model: its digest, in words what it is, and what should be known of it."""

    sha256: str
    form: str = ""
    notes: tuple[str, ...] = ()


def _look_into_folder(path: Path) -> _File:
    from deploycheck.steps.exported import open_folder

    folder = open_folder(path)
    return _File(folder.sha256, f", exported for {folder.signature.runtime}")


def _look_into_file(path: Path, task: str, extensions: Extensions) -> _File:
    from deploycheck.stages import weights

    with needing_extra("`model.artifact`", "onnx"):
        from deploycheck.stages.onnx.file import files_of, read_graph
    files = files_of(path)
    digest = weights.digest_of(path) if len(files) == 1 else weights.digest_of_all(files, path.parent)
    graph = read_graph(path)
    gives_probabilities = extensions.tasks[task].word.logits and "Softmax" in map(graph.operator_of, graph.outputs)
    return _File(digest, notes=(PROBABILITIES,) if gives_probabilities else ())
