"""What each kind of step does: from the spec and the artifacts it needs to the files of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deploycheck.plan import TRAINED, Plan, Step, method_chain, named
from deploycheck.runner.code import load_object
from deploycheck.runner.extensions import Extensions
from deploycheck.store import Artifact, Building

if TYPE_CHECKING:
    from deploycheck.stages.model import Model, Network

PREDICT_BATCH = 64
"""Examples a batch when the model in memory answers a split."""


@dataclass(frozen=True)
class Work:
    """One step about to be done: what it is, what it is made from, and where it may write."""

    plan: Plan
    step: Step
    inputs: Mapping[str, Artifact]
    root: Path
    extensions: Extensions
    report: Callable[[str], None]

    @property
    def where(self) -> str:
        """The step as an error names it."""
        return f"{self.plan.id}: {self.step.name}"


def make_data(work: Work, building: Building) -> dict[str, Any]:
    """Load, split, fit the preprocessing."""
    from deploycheck.stages import data, examples, preprocess

    section, model = work.plan.spec.data, work.plan.spec.model
    load = load_object(work.extensions.loader(section.load), work.root, work.where)
    options = work.extensions.loader_options(section, work.root)
    loaded = examples.as_examples(load(**options), tuple(model.input), work.where)
    _check_shapes(loaded, model, work.where)
    fractions = {name: getattr(section.split, name) for name in examples.SPLITS}
    splits = examples.split(loaded, fractions, seed=section.split.seed, stratify=section.split.stratify)
    fitted = preprocess.fit_all(_steps(work), splits["train"].inputs, work.where)
    data.write(data.Dataset(splits, fitted), building.out)
    return {"examples": {name: len(part) for name, part in splits.items()}}
