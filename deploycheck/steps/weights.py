"""``weights``: the model with the weights that the spec names, before any training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deploycheck.errors import located
from deploycheck.language.spec import Weights
from deploycheck.ref import Ref, Source
from deploycheck.steps.data import DATA
from deploycheck.steps.initial import InitialModel, initial_model
from deploycheck.steps.kind import Making, Metadata, StepKind
from deploycheck.steps.project_files import find_file

if TYPE_CHECKING:
    from deploycheck.check import Check
    from deploycheck.extensions import Extensions
    from deploycheck.language import Spec

WEIGHTS = Ref("weights")


class WeightsSettings(InitialModel):
    """The model, and where its weights are."""

    seed: int
    weights: Weights


class WeightsStep(StepKind):
    """Its artifact is a trained model (``steps/trained.py``)."""

    name = "weights"
    product = True
    isolated = True
    settings_type = WeightsSettings

    def stages(self, spec: Spec) -> Iterable[tuple[str, str | None, Ref]]:
        """Yield the train stage of a model that isn't trained here."""
        if spec.model.weights and not spec.train.trains:
            yield "train", None, WEIGHTS

    def needs(self, spec: Spec, ref: Ref, extensions: Extensions) -> Mapping[str, Ref]:
        """Return the data, which has what the preprocessing learned."""
        del spec, ref, extensions
        return {"data": DATA}

    def settings(self, spec: Spec, ref: Ref, checks: Sequence[Check]) -> WeightsSettings:
        """Return the model section."""
        del checks
        if spec.model.weights is None:
            raise KeyError(ref)
        return WeightsSettings(**initial_model(spec), seed=spec.train.seeds[0], weights=spec.model.weights)

    def sources(self, settings: WeightsSettings) -> Iterable[Source]:
        """Yield the model's code, the format, the function that renames, the preprocessing steps and the task."""
        yield from settings.sources()
        yield Source("formats", settings.weights.load)
        if isinstance(settings.weights.names, str):
            yield Source("formats", settings.weights.names)

    def make(self, making: Making) -> Metadata:
        """Build the model, give it the weights, and see that its outputs fit the labels."""
        from deploycheck.stages import data, train, weights
        from deploycheck.steps import trained

        settings: WeightsSettings = making.settings
        written, extensions = settings.weights, making.extensions
        making.progress(f"train: reading {written.path}")
        path = find_file(written.path, extensions.root)
        digest = weights.digest_of(path)
        with located(written.path):
            weights.check_digest(digest, written.sha256)
        dataset = data.read(making.inputs["data"].path)
        config = settings.config(settings.seed)
        model = trained.build(config, dataset.fitted, extensions, settings.seed)
        arrays = weights.read_arrays(path, extensions.weight_reader(written.load))
        with located(written.path):
            imported = weights.give(model, arrays, _names(written, extensions))
        labels = {name: part.labels for name, part in dataset.splits.items() if len(part)}
        train.check_outputs(imported.model, extensions.tasks[settings.task], labels)
        trained.write(trained.Trained(config, imported.model, dataset.fitted), making.out)
        cast = f", converted from {', '.join(imported.cast)}" if imported.cast else ""
        return {"sha256": digest, "remarks": [f"weights of {written.path}, sha256:{digest[:12]}{cast}"]}


def _names(written: Weights, extensions: Extensions) -> Any:
    return extensions.load_object(written.names) if isinstance(written.names, str) else written.names
