from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploycheck.checks.quality import accuracy, accuracy_drop, learned, worst_class
from deploycheck.stages.training import Epoch, SeedReport, TrainingReport
from deploycheck.verdict import Measurement, Paired, Proportion, WorstOf, bounds, value_of

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
ANSWERS = [0, 0, 0, 1, 1, 1, 1, 2, 0, 0]  # 3 of 4, 3 of 3, 1 of 3
TRAINING = TrainingReport(
    (
        SeedReport(7, (Epoch(9.0, 9.0, 0.1),), kept=0),
        SeedReport(8, (Epoch(2.3026, 2.3, 0.2), Epoch(1.0, 1.1, 0.6), Epoch(0.0512, 0.2, 0.9)), kept=1),
    ),
    deployed_seed=8,
)


def logits(answers: Sequence[int], classes: int = 3) -> np.ndarray:
    """Return outputs whose highest logit is each answer's; they are not probabilities, and may all be negative."""
    outputs = np.full((len(answers), classes), -5.0, np.float32)
    outputs[np.arange(len(answers)), answers] = -1.0
    return outputs


OUTPUTS = logits(ANSWERS)


# Accuracy


def test_accuracy_counts_the_answers_that_are_their_label() -> None:
    assert accuracy.measure(LABELS, OUTPUTS) == Measurement(Proportion(7, 10))


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_an_answer_that_is_no_number_is_wrong_even_where_its_highest_is_right(broken: float) -> None:
    outputs = OUTPUTS.copy()
    outputs[0, 2] = broken
    assert accuracy.measure(LABELS, outputs).sample == Proportion(6, 10)
    outputs[0] = [np.inf, 0, 0]
    assert accuracy.measure(LABELS, outputs).sample == Proportion(6, 10)


def test_a_model_that_answers_nothing_but_nan_has_no_accuracy() -> None:
    for measured in (
        accuracy.measure(LABELS, np.full((10, 3), np.nan)),
        worst_class.measure(LABELS, np.full((10, 3), np.nan)),
    ):
        assert value_of(measured.sample) == 0


def test_a_label_beyond_what_the_model_can_say_is_answered_wrong() -> None:
    assert accuracy.measure(np.array([0, 3]), logits([0, 2])).sample == Proportion(1, 2)


# The worst class


def test_the_worst_class_is_the_one_answered_right_least() -> None:
    measured = worst_class.measure(LABELS, OUTPUTS)
    assert measured.sample == WorstOf({"0": Proportion(3, 4), "1": Proportion(3, 3), "2": Proportion(1, 3)})
    assert value_of(measured.sample) == pytest.approx(1 / 3)
    assert measured.note == "class 2: 1 of 3 right"


def test_a_class_that_no_test_example_has_is_no_slice() -> None:
    measured = worst_class.measure(np.array([0, 2]), logits([0, 2]))
    assert measured.sample == WorstOf({"0": Proportion(1, 1), "2": Proportion(1, 1)})


def test_a_class_is_judged_by_what_its_own_examples_were_answered() -> None:
    """Naming class 0 always is right on all of class 0, however many others are called 0 as well."""
    measured = worst_class.measure(LABELS, logits([0] * 10))
    assert measured.sample == WorstOf({"0": Proportion(4, 4), "1": Proportion(0, 3), "2": Proportion(0, 3)})


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=50))
def test_the_worst_class_is_never_better_than_the_whole(pairs: list[tuple[int, int]]) -> None:
    labels, outputs = np.array([label for label, _ in pairs]), logits([answer for _, answer in pairs])
    whole, worst = (value_of(each.measure(labels, outputs).sample) for each in (accuracy, worst_class))
    assert worst <= whole + 1e-12


# Learned


def test_learned_is_the_share_of_the_gap_over_the_majority_that_was_closed() -> None:
    """The majority is 4 of 10, 7 of 10 are right: 3 of the 6 that were to be gained."""
    measured = learned.measure(LABELS, OUTPUTS, TRAINING)
    assert value_of(measured.sample) == pytest.approx((0.7 - 0.4) / 0.6)
    assert not measured.invalid


@pytest.mark.parametrize(
    ("answers", "value"),
    [([0] * 10, 0.0), (list(LABELS), 1.0), ([1, 1, 1, 1, 2, 2, 2, 0, 0, 0], -0.4 / 0.6)],
    ids=["majority", "perfect", "worse than guessing"],
)
def test_naming_the_majority_has_learned_nothing_and_no_error_is_all(answers: list[int], value: float) -> None:
    assert value_of(learned.measure(LABELS, logits(answers), TRAINING).sample) == pytest.approx(value)


def test_the_interval_of_learned_is_that_of_accuracy_on_its_scale() -> None:
    low, high = bounds(accuracy.measure(LABELS, OUTPUTS).sample, 0.95)
    expected = [(bound - 0.4) / 0.6 for bound in (low, high)]
    assert bounds(learned.measure(LABELS, OUTPUTS, TRAINING).sample, 0.95) == pytest.approx(expected)


def test_the_note_tells_the_deployed_seeds_losses_and_what_guessing_would_give() -> None:
    assert learned.measure(LABELS, OUTPUTS, TRAINING).note == (
        "accuracy 70.0% against 40.0% for the majority class; "
        "training loss 2.3026 in the first epoch, 0.0512 in the last of 3"
    )


def test_labels_that_are_all_the_same_can_show_nothing() -> None:
    measured = learned.measure(np.array([1, 1]), logits([1, 1]), TRAINING)
    assert measured.unfit == "every test label is the same: nothing to learn"


# The drop


def test_a_drop_is_positive_where_the_variant_is_worse() -> None:
    trained = logits([*LABELS[:9], 0])  # all right but the last
    measured = accuracy_drop.measure(LABELS, OUTPUTS, trained)
    assert measured.sample == Paired(lost=2, gained=0, total=10, right=9)
    assert value_of(measured.sample) == pytest.approx(0.2)
    assert measured.note == "2 answers turned wrong and 0 right, of 10"


def test_a_drop_is_negative_where_the_variant_is_better() -> None:
    measured = accuracy_drop.measure(LABELS, logits(list(LABELS)), OUTPUTS)
    assert measured.sample == Paired(lost=0, gained=3, total=10, right=7)
    assert value_of(measured.sample) == pytest.approx(-0.3)


def test_what_both_got_wrong_in_different_ways_is_no_change() -> None:
    measured = accuracy_drop.measure(np.array([0, 0, 1]), logits([1, 0, 0]), logits([2, 0, 1]))
    assert measured.sample == Paired(lost=1, gained=0, total=3, right=2)


def test_an_answer_that_turned_into_no_number_is_lost() -> None:
    outputs = logits(list(LABELS))
    outputs[3] = np.nan
    assert accuracy_drop.measure(LABELS, outputs, logits(list(LABELS))).sample == Paired(1, 0, 10, 10)


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=50))
def test_the_drop_is_the_difference_of_the_two_accuracies(triples: list[tuple[int, int, int]]) -> None:
    labels, before, after = (np.array(column) for column in zip(*triples, strict=True))
    drop = value_of(accuracy_drop.measure(labels, logits(after), logits(before)).sample)
    first, second = (value_of(accuracy.measure(labels, logits(answers)).sample) for answers in (before, after))
    assert drop == pytest.approx(first - second)
