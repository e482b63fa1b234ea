"""Distillation: a student is trained to give what its teacher gives.

Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, 2015. With the weight ``alpha`` of the teacher and
the temperature T, each example's loss is::

    alpha * T^2 * KL(softmax(teacher / T) || softmax(student / T)) + (1 - alpha) * loss(student, label)

The gradients of the first term shrink as 1 / T^2, so T^2 keeps the weights of both terms when T is changed. Where a
model gives numbers and not logits, the first term is ``alpha`` times the mean squared difference to the teacher's.
Hints (``stages/hints.py``) add a term of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np

from deploycheck.errors import DeploycheckError
from deploycheck.stages.divergences import Divergence, softened_divergence, squared_difference
from deploycheck.stages.examples import Examples
from deploycheck.stages.hints import HINTS, with_hints, without_hints
from deploycheck.stages.model import Model, PyTree, predictor
from deploycheck.stages.network import Inputs, Outputs
from deploycheck.stages.recipe import Recipe
from deploycheck.stages.tasks import Loss, Task
from deploycheck.stages.trainer import Trainer

LABELS, TEACHER = "labels", "teacher"
"""What the targets of a distillation are: each example's label, and what the teacher gives for it."""


@dataclass(frozen=True)
class Hints:
    """Pairs of a student's part and the teacher's that it learns from, and the weight of both in the loss."""

    parts: Mapping[str, str]
    weight: float


@dataclass(frozen=True)
class Lesson:
    """What a student is trained on: a loss, and for each split the targets that it compares the outputs with."""

    loss: Loss
    targets: Mapping[str, PyTree]


def distill(
    teacher: Model,
    student: Model,
    trainer: Trainer,
    recipe: Recipe,
    *,
    alpha: float,
    temperature: float | None,
    hints: Hints | None = None,
) -> Model:
    """Return the student, trained by the recipe to give what its teacher gives.

    Raises ``DeploycheckError`` where ``lesson_of`` does, and for hints that don't fit the models.
    """
    learner = with_hints(student, teacher, hints.parts, trainer.seed) if hints else student
    lesson = lesson_of(teacher, student, trainer, recipe, alpha=alpha, temperature=temperature)
    learned = trainer.fit(
        learner,
        recipe,
        loss=hinted_loss(lesson.loss, hints.weight) if hints else lesson.loss,
        targets=lesson.targets,
        auxiliary=[HINTS] if hints else (),
        name="distill",
    )
    return without_hints(learned, student) if hints else learned


def lesson_of(
    teacher: Model, student: Model, trainer: Trainer, recipe: Recipe, *, alpha: float, temperature: float | None
) -> Lesson:
    """Return what trains the student, by the recipe, to give what its teacher gives.

    The teacher answers each training and validation example once, in inference mode. Raises ``DeploycheckError``
    where the two give outputs of different names or shapes, and for a temperature where the outputs aren't logits.
    """
    check_outputs(teacher, student)
    output = trainer.task.outputs[0]
    divergence = divergence_for(trainer.task, temperature)
    trainer.progress("distill: the teacher answers the training and validation examples")
    answers = _answers(teacher, trainer.examples, recipe.batch_size)
    return Lesson(
        mixed_loss(trainer.task.losses[recipe.loss], divergence, output, alpha),
        {split: {LABELS: part.labels, TEACHER: answers[split][output]} for split, part in trainer.examples.items()},
    )


def mixed_loss(loss: Loss, divergence: Divergence, output: str, alpha: float) -> Loss:
    """Return ``alpha`` times the divergence of ``output`` from the teacher's, and 1 - ``alpha`` times a task's loss."""

    def mixed(outputs: Outputs, targets: Mapping[str, jax.Array]) -> jax.Array:
        from_teacher = divergence(outputs[output], targets[TEACHER])
        return alpha * from_teacher + (1 - alpha) * loss(outputs, targets[LABELS])

    return mixed


def hinted_loss(loss: Loss, weight: float) -> Loss:
    """Return a loss with the distance from the teacher's hints, times its weight, added."""
    return lambda outputs, targets: loss(outputs, targets) + weight * outputs[HINTS]


def divergence_for(task: Task, temperature: float | None) -> Divergence:
    """Return how a task's outputs are compared with a teacher's; the temperature is 1 where it is None."""
    if task.word.logits:
        return softened_divergence(temperature or 1.0)
    if temperature is not None:
        what = f"a temperature softens logits, and a model for {task.word.name} gives none"
        raise DeploycheckError(what, hint="leave `temperature` out")
    return squared_difference


def check_outputs(teacher: Model, student: Model) -> None:
    """Raise ``DeploycheckError`` where a student gives outputs of other names or shapes than its teacher."""
    given, asked = _shapes(student), _shapes(teacher)
    if given != asked:
        raise DeploycheckError(
            f"for a batch of 2 the student gives {_shown(given)}, and its teacher {_shown(asked)}",
            hint="end the student in the same outputs as its teacher",
        )


def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    shapes = jax.eval_shape(model.apply, model.params, model.state, dict(model.inputs))
    return {name: part.shape for name, part in shapes.items()}


def _shown(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())


def _answers(model: Model, examples: Mapping[str, Examples], batch: int) -> dict[str, Mapping[str, np.ndarray]]:
    """Return a model's outputs for the examples of each split, computed ``batch`` at a time."""

    def infer(weights: PyTree, inputs: Inputs) -> Outputs:
        params, state = weights
        return model.apply(params, state, inputs)

    predict = predictor(infer, min(batch, *(len(part) for part in examples.values())))
    return {split: predict((model.params, model.state), part.inputs) for split, part in examples.items()}
