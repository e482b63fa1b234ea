from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.stages.tasks import Task
from deploycheck.stages.tasks.classification import CLASSIFICATION


def logits(*shape: int) -> dict[str, jax.ShapeDtypeStruct]:
    return {"logits": jax.ShapeDtypeStruct(shape, jnp.float32)}


def test_it_is_a_task_whose_word_names_its_losses_and_scores() -> None:
    assert isinstance(CLASSIFICATION, Task)
    assert CLASSIFICATION.word.losses == tuple(CLASSIFICATION.losses)
    scores = CLASSIFICATION.scores({"logits": np.eye(2)}, np.array([0, 1]))
    assert CLASSIFICATION.word.scores == tuple(scores)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.uint64])
def test_class_numbers_of_any_integers_become_int64(dtype: type) -> None:
    labels = CLASSIFICATION.labels(np.array([0, 4, 2], dtype))
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 4, 2]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0.0, 1.0]), r"labels are float64 of shape \(2,\), expected class numbers of shape \[n\]"),
        (np.array(["cat", "dog"]), "expected class numbers"),
        (np.array([True, False]), "labels are bool"),
        (np.zeros((3, 2), int), r"of shape \(3, 2\)"),
        (np.array([0, 2**40]), "labels go up to 1099511627776: there can be 1,000,000 classes at most"),
        (np.array([1, 2], "m8[s]"), "labels are timedelta64"),
        (np.array([2, -1]), "labels hold -1, expected class numbers from 0"),
    ],
)
def test_other_labels_are_refused(labels: np.ndarray, message: str) -> None:
    with pytest.raises(DeploycheckError, match=message):
        CLASSIFICATION.labels(labels)


@pytest.mark.parametrize("classes", [3, 10])
def test_a_model_with_a_logit_for_each_class_is_accepted(classes: int) -> None:
    CLASSIFICATION.check(logits(2, classes), np.array([0, 2, 1]))


@pytest.mark.parametrize("shape", [(2, 2), (2,), (2, 3, 1), (1, 3)])
def test_a_model_without_a_logit_for_each_class_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DeploycheckError, match=r"expected logits \[2, 3\] or more: the labels go up to 2"):
        CLASSIFICATION.check(logits(*shape), np.array([0, 2, 1]))


def test_a_model_with_other_outputs_is_refused() -> None:
    shapes = {**logits(2, 3), "features": jax.ShapeDtypeStruct((2, 8), jnp.float32)}
    with pytest.raises(DeploycheckError, match="the model gives logits, features, expected logits alone"):
        CLASSIFICATION.check(shapes, np.array([0, 2, 1]))


def test_the_score_is_the_share_of_examples_whose_class_has_the_largest_logit() -> None:
    outputs = {"logits": np.array([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0], [1.0, 0.0, -1.0], [0.0, 0.1, 0.2]])}
    assert CLASSIFICATION.scores(outputs, np.array([0, 2, 0, 2])) == {"accuracy": 0.75}


def test_a_model_of_one_class_is_refused() -> None:
    with pytest.raises(DeploycheckError, match=r"expected logits \[2, 2\] or more"):
        CLASSIFICATION.check(logits(2, 1), np.array([0, 0]))


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_a_constant_model_has_no_example_right(value: float) -> None:
    assert CLASSIFICATION.scores({"logits": np.full((4, 3), value)}, np.array([0, 1, 2, 0])) == {"accuracy": 0}


def test_cross_entropy_is_the_negative_logarithm_of_the_probability_of_the_class() -> None:
    outputs = {"logits": jnp.array([[0.0, 0.0], [math.log(3), 0.0], [math.log(3), 0.0]])}
    losses = CLASSIFICATION.losses["cross_entropy"](outputs, jnp.array([0, 0, 1]))
    np.testing.assert_allclose(losses, [math.log(2), math.log(4 / 3), math.log(4)], rtol=1e-6)


def test_cross_entropy_of_large_logits_is_finite() -> None:
    losses = CLASSIFICATION.losses["cross_entropy"]({"logits": jnp.array([[1e4, -1e4]])}, jnp.array([1]))
    np.testing.assert_allclose(losses, [2e4])


def test_perfect_outputs_score_one_and_fit_the_labels() -> None:
    labels = np.array([2, 0, 1, 2])
    outputs = CLASSIFICATION.perfect(labels)
    np.testing.assert_array_equal(outputs["logits"], [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert CLASSIFICATION.scores(outputs, labels) == {"accuracy": 1}


def test_perfect_outputs_have_two_classes_at_least() -> None:
    np.testing.assert_array_equal(CLASSIFICATION.perfect(np.array([0]))["logits"], [[1, 0]])
