"""What a search found, laid over the settings of a training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from deploycheck.language.references import get
from deploycheck.language.space import put, split_path
from deploycheck.language.spec import Train
from deploycheck.ref import Ref
from deploycheck.stages import trials
from deploycheck.store import Artifact

if TYPE_CHECKING:
    from deploycheck.language import Spec
    from deploycheck.steps.training import TrainingSettings

SEARCH = Ref("search")
SettingsT = TypeVar("SettingsT", bound="TrainingSettings")


def search_of(spec: Spec) -> Mapping[str, Ref]:
    """Return the search for the settings of the training, by its role; nothing where the spec has none."""
    return {"search": SEARCH} if spec.optimize else {}


def found_by(inputs: Mapping[str, Artifact]) -> Mapping[str, Any]:
    """Return what the search among a step's inputs found, by path; nothing where there was no search."""
    return trials.read_best(inputs["search"].path) if "search" in inputs else {}


def overlaid(settings: SettingsT, found: Mapping[str, Any]) -> SettingsT:
    """Return the settings of a training with what a search found in their place."""
    model = _laid_over(_model(settings), found)["model"]
    return settings.model_copy(update={"train": overlaid_train(settings.train, found), "arguments": model["with"]})


def overlaid_train(train: Train, found: Mapping[str, Any]) -> Train:
    """Return a train section with what a search found in its place."""
    return Train.model_validate(_laid_over(_train(train), found)["train"])


def written_before(settings: TrainingSettings, paths: Iterable[str]) -> dict[str, Any]:
    """Return what the spec itself says at the paths that a search varies; None where it says nothing."""
    plain = {**_train(settings.train), **_model(settings)}
    return {path: get(plain, split_path(path)) for path in paths}


def _train(train: Train) -> dict[str, Any]:
    return {"train": train.model_dump(mode="json", by_alias=True)}


def _model(settings: TrainingSettings) -> dict[str, Any]:
    return {"model": {"with": settings.arguments}}


def _laid_over(part: Mapping[str, Any], found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a part of a spec, as plain data, with what was found of it in its place."""
    for written, value in found.items():
        path = split_path(written)
        part = put(part, path, value) if path[0] in part else part
    return part
