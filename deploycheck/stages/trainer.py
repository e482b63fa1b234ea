"""What a compression method that trains is given."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import optax

from deploycheck.errors import DeploycheckError
from deploycheck.stages.examples import Examples
from deploycheck.stages.methods import Builder
from deploycheck.stages.methods.finetuning import Finetune
from deploycheck.stages.model import Model, PyTree
from deploycheck.stages.recipe import Recipe
from deploycheck.stages.tasks import Loss, Task
from deploycheck.stages.train import Job, fit


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """What a method that trains is given: the preprocessed examples, and a way to train on them.

    ``examples`` has ``train`` and ``validation``, never ``test``. ``recipe`` is the spec's ``train`` section, or
    None where nothing is trained. A training that was killed continues from its latest checkpoint in ``scratch``.
    """

    examples: Mapping[str, Examples]
    task: Task
    recipe: Recipe | None
    seed: int
    scratch: Path
    progress: Callable[[str], None]
    build: Builder

    def fit(
        self,
        model: Model,
        recipe: Recipe | None = None,
        *,
        loss: Loss | None = None,
        targets: Mapping[str, PyTree] | None = None,
        constraint: optax.GradientTransformation | None = None,
        auxiliary: Collection[str] = (),
        name: str = "finetune",
    ) -> Model:
        """Train the model further, from its own weights; return it with the weights of its best epoch.

        ``loss(outputs, targets)`` gives each example's loss, ``[batch]``, in place of the task's. The targets are
        the labels, or for each split an array, or a tree of arrays, ``[n, ...]``, in the order of ``examples``.
        ``constraint`` changes the optimiser's updates before they are added to the params: it may keep pruned weights
        at zero. Its state is part of each checkpoint. ``auxiliary`` are outputs of the model that are for the loss
        alone. ``name`` is different for each training of a method.
        """
        chosen = recipe or self.recipe_for(None, name)
        job = Job(
            examples=self.examples,
            task=self.task,
            recipe=chosen,
            loss=loss or self.task.losses[chosen.loss],
            targets=targets or {},
            constraint=constraint or optax.identity(),
            auxiliary=frozenset(auxiliary),
        )
        return fit(model, job, self.seed, self.scratch / name, lambda line: self.progress(f"{name}: {line}"))

    def recipe_for(self, changes: Finetune | None, name: str = "finetune") -> Recipe:
        """Return the spec's recipe with what a method's options change in it.

        Raises ``DeploycheckError`` where the spec's ``train`` section trains nothing.
        """
        if self.recipe is None:
            hint = "give `train` an optimizer, epochs and a batch_size"
            raise DeploycheckError(f"{name}: the spec's `train` section has no training to go by", hint=hint)
        return changes.recipe(self.recipe) if changes else self.recipe

    def steps(self, recipe: Recipe) -> int:
        """Return how many steps ``fit`` trains for by a recipe, if it isn't stopped early."""
        job = Job(examples=self.examples, task=self.task, recipe=recipe, loss=self.task.losses[recipe.loss])
        return recipe.epochs * job.steps
