"""Steps done here, in this process, as a worker does them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploycheck.extensions import Extensions
from deploycheck.language.spec import Input, Split, Train
from deploycheck.steps import STEP_KINDS
from deploycheck.steps.data import DataSettings
from deploycheck.steps.kind import Making
from deploycheck.steps.training import TrainingSettings
from deploycheck.store import Artifact, write_manifest
from tests.planning import built_in

INPUT = {"x": Input(shape=(4,), dtype="float32")}
PREPROCESS = (("scale", {"by": 0.5}),)
TRAIN = Train.model_validate({"optimizer": {"adam": {"learning_rate": 0.05}}, "epochs": 3, "batch_size": 16})
USES = (("models", "tests.steps.users:build"), ("preprocessing", "scale"), ("tasks", "classification"))


@dataclass(frozen=True)
class Steps:
    """Steps of a project, whose artifacts are kept in ``folder``."""

    folder: Path
    extensions: Extensions = field(default_factory=built_in)
    said: list[str] = field(default_factory=list)

    def make(self, kind: str, settings: Any, name: str = "", **inputs: Artifact) -> Artifact:
        """Do a step, and return its artifact."""
        making = self.making(settings, name or kind, **inputs)
        return write_manifest(making.out, kind, "0" * 64, STEP_KINDS[kind].make(making))

    def making(self, settings: Any, name: str, **inputs: Artifact) -> Making:
        out, scratch = self.folder / name, self.folder / f"{name} scratch"
        for folder in (out, scratch):
            folder.mkdir()
        return Making(
            settings=settings,
            inputs=inputs,
            out=out,
            scratch=scratch,
            kept=self.folder / "kept",
            progress=self.said.append,
            extensions=self.extensions,
        )


def data_settings(**changed: Any) -> DataSettings:
    fields: Mapping[str, Any] = {
        "load": "tests.steps.users:clusters",
        "arguments": {"rows": 90},
        "split": Split(train=0.6, validation=0.2, test=0.2),
        "preprocess": PREPROCESS,
        "input": INPUT,
        "task": "classification",
    }
    return DataSettings(**{**fields, **changed})


def training_settings(**changed: Any) -> TrainingSettings:
    fields: Mapping[str, Any] = {
        "build": "tests.steps.users:build",
        "arguments": {"width": 8},
        "input": INPUT,
        "task": "classification",
        "preprocess": PREPROCESS,
        "train": TRAIN,
    }
    return TrainingSettings(**{**fields, **changed})
