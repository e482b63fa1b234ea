"""Ties count against the model, in every metric of answers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from deploycheck.checks import MetricFunction
from deploycheck.checks.quality import accuracy, accuracy_drop, agreement, top3, top5, top10, worst_class
from deploycheck.checks.statistics import calibration_error, f1_macro, f1_micro
from deploycheck.stages.answers import NO_ANSWER, find_answers, is_among_highest, is_right
from deploycheck.verdict import Paired, value_of

CLASSES = 20
LABELS = np.arange(200) % CLASSES
CONSTANT = np.zeros((200, CLASSES), np.float32)
RIGHT = np.eye(CLASSES, dtype=np.float32)[LABELS]

logits = arrays.arrays(np.float32, st.tuples(st.integers(1, 8), st.integers(2, 6)), elements=st.sampled_from([0, 1, 2]))


@pytest.mark.parametrize(
    "metric", [accuracy, worst_class, top3, top5, top10, f1_macro, f1_micro], ids=lambda metric: metric.word.name
)
def test_a_constant_model_is_never_right(metric: MetricFunction) -> None:
    assert value_of(metric.measure(LABELS, CONSTANT).sample) == 0
    assert value_of(metric.measure(LABELS, RIGHT).sample) == 1


def test_two_constant_models_agree_on_nothing() -> None:
    assert value_of(agreement.measure(CONSTANT, CONSTANT).sample) == 0
    assert value_of(agreement.measure(RIGHT, RIGHT).sample) == 1


def test_a_model_that_became_constant_lost_every_answer() -> None:
    assert accuracy_drop.measure(LABELS, CONSTANT, RIGHT).sample == Paired(200, 0, 200, 200)


def test_a_constant_model_is_as_badly_calibrated_as_its_ties_allow() -> None:
    """It is 5 % sure of each class, and may have every answer or none."""
    error = value_of(calibration_error.measure(LABELS, CONSTANT).sample)
    assert error == pytest.approx(0.95, rel=1e-6)


def test_ties_hide_no_other_error_of_calibration() -> None:
    """One example is half sure and right, another a tie: counted as wrong, it would hide the first one's error."""
    outputs = np.array([[0.02, 0.0], [0.0, 0.0]])
    error = value_of(calibration_error.measure(np.array([0, 0]), outputs).sample)
    assert error == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ([0, 2, 1], 1),
        ([2, 2, 1], NO_ANSWER),
        ([-1, -1, -3], NO_ANSWER),
        ([0, 0, 1], 2),
        ([0, math.nan, 1], NO_ANSWER),
        ([0, math.inf, 1], NO_ANSWER),
        ([0, -math.inf, 1], NO_ANSWER),
    ],
)
def test_an_answer_is_the_one_class_with_the_highest_logit(row: list[float], answer: int) -> None:
    assert find_answers(np.array([row], np.float32)).tolist() == [answer]


@pytest.mark.parametrize(("k", "among"), [(1, False), (2, False), (3, True), (4, True)])
def test_classes_with_the_labels_own_logit_rank_before_it(k: int, among: bool) -> None:
    assert is_among_highest(np.array([1]), np.array([[5, 3, 3, 0]]), k).tolist() == [among]


def test_a_label_that_the_model_has_no_logit_for_is_not_among_the_highest() -> None:
    assert not is_among_highest(np.array([4]), np.array([[3.0, 2.0, 1.0]]), 3).any()
    assert not is_among_highest(np.array([0]), np.array([[3.0, math.nan, 1.0]]), 3).any()


@pytest.mark.parametrize(("classes", "decides"), [(3, False), (2, False), (4, True)])
def test_a_top_k_of_all_classes_decides_nothing(classes: int, decides: bool) -> None:
    measured = top3.measure(np.zeros(5, int), np.eye(classes)[np.zeros(5, int)])
    assert (not measured.unfit) is decides
    assert decides or f"the model has {classes} classes" in measured.unfit


@given(logits, st.data())
def test_right_is_among_the_highest_one_and_more_are_among_more(outputs: np.ndarray, data: st.DataObject) -> None:
    classes = outputs.shape[1]
    labels = np.array([data.draw(st.integers(0, classes - 1)) for _ in outputs])
    among = [is_among_highest(labels, outputs, k) for k in range(1, classes + 1)]
    assert (among[0] == is_right(labels, outputs)).all()
    assert all((fewer <= more).all() for fewer, more in itertools.pairwise(among))
    assert among[-1].all()


@given(logits, st.randoms())
def test_the_order_of_the_classes_means_nothing(outputs: np.ndarray, random) -> None:
    order = list(range(outputs.shape[1]))
    random.shuffle(order)
    moved = find_answers(outputs[:, order])
    restored = [NO_ANSWER if answer == NO_ANSWER else order[answer] for answer in moved]
    assert restored == find_answers(outputs).tolist()
