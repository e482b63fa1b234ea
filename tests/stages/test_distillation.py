from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.stages.distillation import (
    LABELS,
    TEACHER,
    distill,
    divergence_for,
    mixed_loss,
)
from deploycheck.stages.divergences import softened_divergence, squared_difference
from deploycheck.stages.examples import Examples
from deploycheck.stages.model import Model
from deploycheck.stages.tasks.classification import cross_entropy
from deploycheck.stages.tasks.regression import REGRESSION
from tests.stages.networks import from_function
from tests.stages.trainers import RECIPE, Splits, trainer_for


def teacher_of_stripes() -> Model:
    """A model that gives the row of the bright stripe large logits, whatever the labels say."""
    rows = np.zeros((6, 6, 1, 3), np.float32)
    for label in range(3):
        rows[2 * label, :, 0, label] = 0.5
    return from_function({"w": rows.reshape(36, 3)}, lambda params, x: x.reshape(-1, 36) @ params["w"], (6, 6, 1))


def student(width: int = 8) -> Model:
    first, second = jax.random.split(jax.random.key(1))
    params = {
        "kernel": 0.1 * jax.random.normal(first, (36, width)),
        "head": 0.1 * jax.random.normal(second, (width, 3)),
    }
    return from_function(
        params, lambda params, x: jax.nn.relu(x.reshape(-1, 36) @ params["kernel"]) @ params["head"], (6, 6, 1)
    )


def renamed(examples: Splits) -> dict[str, Examples]:
    """Return the examples as models made by ``from_function`` take them."""
    return {name: replace(part, inputs={"x": part.inputs["image"]}) for name, part in examples.items()}


def answers(model: Model, part: Examples) -> np.ndarray:
    (output,) = model.apply(model.params, model.state, part.inputs).values()
    return np.asarray(output)


def test_alpha_is_the_weight_of_the_teacher_and_the_rest_that_of_the_labels() -> None:
    outputs = {"logits": jnp.array([[2.0, 0.0, -1.0], [0.5, 0.0, 0.0]])}
    targets = {LABELS: jnp.array([1, 0]), TEACHER: jnp.array([[0.0, 3.0, 0.0], [2.0, 0.0, 1.0]])}
    divergence = softened_divergence(2.0)
    of_teacher = divergence(outputs["logits"], targets[TEACHER])
    of_labels = cross_entropy(outputs, targets[LABELS])
    for alpha in (0.0, 0.3, 1.0):
        mixed = mixed_loss(cross_entropy, divergence, "logits", alpha)(outputs, targets)
        np.testing.assert_allclose(mixed, alpha * of_teacher + (1 - alpha) * of_labels, rtol=1e-5)


def test_numbers_are_compared_as_they_are() -> None:
    assert divergence_for(REGRESSION, None) is squared_difference


def test_numbers_have_no_temperature() -> None:
    with pytest.raises(DeploycheckError, match="a temperature softens logits, and a model for regression gives none"):
        divergence_for(REGRESSION, 4.0)


def test_each_example_gets_its_own_answer_of_the_teacher(tmp_path: Path) -> None:
    # The labels are noise, so the student finds the teacher's weights only by its answers, in the right order.
    random = np.random.default_rng(0)
    x, weights = random.normal(size=(60, 3)).astype(np.float32), np.array([[0.5], [-1.0], [2.0]], np.float32)

    def linear(params: dict[str, jax.Array]) -> Model:
        return from_function(params, lambda params, x: x @ params["w"], (3,), output="prediction")

    part = Examples({"x": x}, random.normal(size=60).astype(np.float32))
    trainer = trainer_for({"train": part, "validation": part.take(slice(7))}, tmp_path, task=REGRESSION)
    recipe = replace(
        RECIPE, optimizer="sgd", options={"learning_rate": 0.1}, epochs=10, batch_size=8, loss="squared_error"
    )
    teacher, small = linear({"w": weights}), linear({"w": jnp.zeros((3, 1))})
    learned = distill(teacher, small, trainer, recipe, alpha=1.0, temperature=None)
    np.testing.assert_allclose(learned.params["w"], weights, atol=1e-3)


def test_a_student_learns_from_its_teacher_what_the_labels_do_not_say(examples: Splits, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    unlabelled = {
        name: replace(part, labels=random.permutation(part.labels)) for name, part in renamed(examples).items()
    }
    teacher, trainer = teacher_of_stripes(), trainer_for(unlabelled, tmp_path)
    learned = distill(teacher, student(), trainer, RECIPE, alpha=1.0, temperature=2.0)
    same = [answers(model, unlabelled["validation"]).argmax(axis=1) for model in (learned, teacher)]
    assert np.mean(same[0] == same[1]) > 0.95
    assert set(learned.params) == {"kernel", "head"}


def test_the_teacher_answers_once_however_long_the_student_is_trained(examples: Splits, tmp_path: Path) -> None:
    teacher, given_to_it = teacher_of_stripes(), [0]

    def count(x: np.ndarray) -> np.ndarray:
        given_to_it[0] += len(x)
        return x

    def counted(params: Any, state: Any, inputs: Any) -> Any:
        x = jax.pure_callback(count, jax.ShapeDtypeStruct(inputs["x"].shape, jnp.float32), inputs["x"])
        return teacher.apply(params, state, {"x": x})

    splits = renamed(examples)
    trainer = trainer_for(splits, tmp_path)
    distill(replace(teacher, apply=counted), student(), trainer, RECIPE, alpha=0.5, temperature=2.0)
    assert 300 <= given_to_it[0] < 300 + 2 * RECIPE.batch_size


class Stopped(Exception):
    """The run was stopped here."""


def test_a_distillation_that_was_stopped_resumes_and_ends_where_an_undisturbed_one_does(
    examples: Splits, tmp_path: Path
) -> None:
    splits = renamed(examples)
    lines: list[str] = []

    def learned(folder: str, progress: Callable[[str], None]) -> Model:
        trainer = trainer_for(splits, tmp_path / folder, progress=progress)
        return distill(teacher_of_stripes(), student(), trainer, RECIPE, alpha=0.7, temperature=4.0)

    def stop(line: str) -> None:
        if "epoch 4/" in line:
            raise Stopped

    with pytest.raises(Stopped):
        learned("stopped", stop)
    resumed, whole = learned("stopped", lines.append), learned("whole", lambda line: None)
    assert lines[1].startswith("distill: resumed after epoch")
    for name, array in whole.weights.items():
        np.testing.assert_array_equal(resumed.weights[name], array)


@pytest.mark.parametrize(
    ("shape", "output", "found"),
    [
        ((36, 4), "logits", "the student gives logits [2, 4], and its teacher logits [2, 3]"),
        ((36, 3), "classes", "the student gives classes [2, 3], and its teacher logits [2, 3]"),
    ],
)
def test_a_student_with_other_outputs_is_refused_before_it_is_trained(
    shape: tuple[int, int], output: str, found: str, examples: Splits, tmp_path: Path
) -> None:
    lines: list[str] = []
    params = {"w": jnp.zeros(shape)}
    other = from_function(params, lambda params, x: x.reshape(-1, 36) @ params["w"], (6, 6, 1), output=output)
    trainer = trainer_for(renamed(examples), tmp_path, progress=lines.append)
    with pytest.raises(DeploycheckError, match=re.escape(found)):
        distill(teacher_of_stripes(), other, trainer, RECIPE, alpha=0.5, temperature=2.0)
    assert lines == []
