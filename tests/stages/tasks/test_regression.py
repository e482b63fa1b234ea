from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.stages.tasks import Task
from deploycheck.stages.tasks.regression import REGRESSION


def prediction(*shape: int) -> dict[str, jax.ShapeDtypeStruct]:
    return {"prediction": jax.ShapeDtypeStruct(shape, jnp.float32)}


def test_it_is_a_task_whose_word_names_its_losses() -> None:
    assert isinstance(REGRESSION, Task)
    assert REGRESSION.word.losses == tuple(REGRESSION.losses)


@pytest.mark.parametrize("labels", [np.array([0.5, -1, 2]), np.array([-1, 0, 300]), np.array([7], np.uint8)])
def test_finite_numbers_become_float32(labels: np.ndarray) -> None:
    found = REGRESSION.labels(labels)
    np.testing.assert_array_equal(found, labels.astype(np.float32))
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([1, np.nan, np.inf]), "2 of 3 labels are not finite"),
        (np.array([1, 1e300]), "1 of 2 labels are not finite"),
        (np.zeros((3, 2)), "labels are float64 of shape (3, 2), expected numbers of shape [n]"),
        (np.array(["1"]), "expected numbers"),
        (np.array([True, False]), "labels are bool"),
        (np.array([1, 2], "m8[s]"), "labels are timedelta64"),
    ],
)
def test_other_labels_are_refused(labels: np.ndarray, message: str) -> None:
    with pytest.raises(DeploycheckError, match=re.escape(message)):
        REGRESSION.labels(labels)


def test_a_model_that_gives_one_number_is_accepted() -> None:
    REGRESSION.check(prediction(2, 1), np.zeros(3, np.float32))


@pytest.mark.parametrize("shape", [(2, 3), (2,), (1, 1), (2, 1, 1)])
def test_a_model_that_gives_something_else_is_refused(shape: tuple[int, ...]) -> None:
    message = f"the model gives {list(shape)}, expected a number for each: [2, 1]"
    with pytest.raises(DeploycheckError, match=re.escape(message)):
        REGRESSION.check(prediction(*shape), np.zeros(3, np.float32))


def test_a_model_with_other_outputs_is_refused() -> None:
    with pytest.raises(DeploycheckError, match="the model gives logits, expected prediction alone"):
        REGRESSION.check({"logits": jax.ShapeDtypeStruct((2, 1), jnp.float32)}, np.zeros(3, np.float32))


def test_it_has_no_scores_beside_the_loss() -> None:
    assert REGRESSION.scores({"prediction": np.zeros((2, 1))}, np.zeros(2)) == {}
    assert REGRESSION.word.scores == ()


def test_squared_error_is_that_of_each_example() -> None:
    outputs = {"prediction": jnp.array([[1.0], [2.0], [-1.0]])}
    losses = REGRESSION.losses["squared_error"](outputs, jnp.array([1.0, 4.5, 2.0]))
    np.testing.assert_allclose(losses, [0, 6.25, 9])


def test_perfect_outputs_have_no_loss_and_the_shape_that_is_asked_for() -> None:
    labels = np.array([0.5, -2.0], np.float32)
    outputs = REGRESSION.perfect(labels)
    REGRESSION.check(prediction(*outputs["prediction"].shape), labels)
    losses = REGRESSION.losses["squared_error"]({"prediction": jnp.asarray(outputs["prediction"])}, jnp.asarray(labels))
    np.testing.assert_array_equal(losses, [0, 0])
