"""A trainer as a method is given one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from deploycheck.stages.examples import Examples
from deploycheck.stages.recipe import Recipe
from deploycheck.stages.tasks import Task
from deploycheck.stages.tasks.classification import CLASSIFICATION
from deploycheck.stages.trainer import Trainer
from tests.stages.networks import plain

RECIPE = Recipe(optimizer="adam", options={"learning_rate": 1e-2}, epochs=6, batch_size=32)

Splits = Mapping[str, Examples]


def trainer_for(
    examples: Splits,
    scratch: Path,
    recipe: Recipe = RECIPE,
    progress: Callable[[str], None] = lambda line: None,
    task: Task = CLASSIFICATION,
) -> Trainer:
    """Return a trainer with checkpoints in ``scratch``; another model that it builds is the plain classifier."""
    return Trainer(
        examples=examples,
        task=task,
        recipe=recipe,
        seed=0,
        scratch=scratch,
        progress=progress,
        build=lambda path, arguments: plain(0),
    )
