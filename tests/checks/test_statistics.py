"""The statistics of answers, against scikit-learn's on the same."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from deploycheck.checks import MetricFunction, statistics
from deploycheck.checks.quality import top3
from deploycheck.verdict import Resampled, bounds, value_of
from tests.checks.built_in import built_in_metrics

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 4, 300)
OUTPUTS = (RANDOM.standard_normal((300, 4)) + 1.5 * np.eye(4)[LABELS]).astype(np.float32)
ANSWERS = OUTPUTS.argmax(axis=1)
PROBABILITIES = np.exp(OUTPUTS.astype(float)) / np.exp(OUTPUTS.astype(float)).sum(axis=1, keepdims=True)


def value(metric: MetricFunction, labels: np.ndarray = LABELS, outputs: np.ndarray = OUTPUTS) -> float:
    return value_of(metric.measure(labels=labels, outputs=outputs).sample)


@pytest.mark.parametrize(
    ("metric", "reference"),
    [
        (statistics.precision_macro, metrics.precision_score(LABELS, ANSWERS, average="macro")),
        (statistics.recall_macro, metrics.recall_score(LABELS, ANSWERS, average="macro")),
        (statistics.f1_macro, metrics.f1_score(LABELS, ANSWERS, average="macro")),
        (statistics.f1_micro, metrics.f1_score(LABELS, ANSWERS, average="micro")),
        (statistics.auc, metrics.roc_auc_score(LABELS, PROBABILITIES, multi_class="ovr")),
        (statistics.log_loss, metrics.log_loss(LABELS, PROBABILITIES)),
        (statistics.perplexity, math.exp(metrics.log_loss(LABELS, PROBABILITIES))),
        (top3, metrics.top_k_accuracy_score(LABELS, PROBABILITIES, k=3)),
    ],
    ids=lambda given: given.word.name if isinstance(given, MetricFunction) else "",
)
def test_it_is_what_scikit_learn_says(metric: MetricFunction, reference: float) -> None:
    assert value(metric) == pytest.approx(reference, rel=1e-6)


def test_two_classes_have_one_area_and_ties_count_half() -> None:
    labels = np.array([0, 0, 1, 1, 1])
    outputs = np.array([[0, 0], [0, 1], [0, 1], [0, 2], [0, 0]], np.float32)
    assert value(statistics.auc, labels, outputs) == pytest.approx(metrics.roc_auc_score(labels, outputs[:, 1]))


def test_a_class_that_is_never_answered_counts_as_scikit_learn_counts_it() -> None:
    labels, outputs = np.array([0, 0, 1, 2]), np.eye(4, dtype=np.float32)[[0, 0, 0, 3]]
    for metric, reference in (
        (statistics.precision_macro, metrics.precision_score),
        (statistics.recall_macro, metrics.recall_score),
        (statistics.f1_macro, metrics.f1_score),
    ):
        expected = reference(labels, outputs.argmax(axis=1), average="macro", zero_division=0)
        assert value(metric, labels, outputs) == pytest.approx(expected)


def test_the_calibration_error_is_what_its_definition_gives_by_hand() -> None:
    confidence = PROBABILITIES.max(axis=1)
    expected = 0.0
    for low in range(15):
        inside = (confidence >= low / 15) & (confidence < (low + 1) / 15)
        if inside.any():
            gap = confidence[inside].mean() - (ANSWERS == LABELS)[inside].mean()
            expected += inside.mean() * abs(gap)
    assert value(statistics.calibration_error) == pytest.approx(expected, rel=1e-6)


def test_bits_per_byte_are_of_models_whose_tokens_are_bytes() -> None:
    labels = RANDOM.integers(0, 256, 50)
    uniform = np.zeros((50, 256), np.float32)
    assert value(statistics.bits_per_byte, labels, uniform) == pytest.approx(8)
    assert "tokens are not bytes" in statistics.bits_per_byte.measure(LABELS, OUTPUTS).unfit


@pytest.mark.parametrize("metric", [statistics.auc, statistics.log_loss, statistics.calibration_error])
def test_an_output_that_is_no_number_has_no_such_statistic(metric: MetricFunction) -> None:
    broken = OUTPUTS.copy()
    broken[3, 1] = np.nan
    assert metric.measure(LABELS, broken).invalid


def test_an_output_that_is_no_number_is_no_answer_where_answers_are_counted() -> None:
    broken = OUTPUTS.copy()
    broken[:, 0] = np.nan
    assert value(statistics.f1_micro, LABELS, broken) == 0


@given(st.sampled_from([statistics.f1_macro, statistics.log_loss]), st.integers(0, 2**32 - 1))
def test_the_order_of_the_examples_means_nothing(metric: MetricFunction, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(LABELS))
    assert value(metric, LABELS[order], OUTPUTS[order]) == pytest.approx(value(metric))


@pytest.mark.parametrize("shift", [0.0, 500.0, -500.0])
def test_a_constant_on_all_logits_means_nothing_and_overflows_nothing(shift: float) -> None:
    shifted: Callable[[MetricFunction], float] = lambda metric: value(metric, LABELS, OUTPUTS + np.float32(shift))  # noqa: E731
    assert shifted(statistics.log_loss) == pytest.approx(value(statistics.log_loss), rel=1e-3)
    assert shifted(statistics.auc) == pytest.approx(value(statistics.auc), rel=1e-3)


def test_it_is_decided_by_resampling_and_the_bounds_hold_the_value() -> None:
    sample = statistics.f1_macro.measure(LABELS, OUTPUTS).sample
    assert isinstance(sample, Resampled)
    low, high = bounds(sample, 0.95)
    assert low < value_of(sample) < high
    assert bounds(sample, 0.95) == (low, high)


def test_metrics_that_set_classes_side_by_side_say_so() -> None:
    """Within one class they mean nothing, and the language refuses them there."""
    over = {metric.word.name for metric in built_in_metrics() if metric.word.over_classes}
    assert over == {"accuracy.worst_class", "precision.macro", "recall.macro", "f1.macro", "auc"}


def test_a_perplexity_past_all_bounds_is_bad_not_broken() -> None:
    outputs = np.where(np.eye(4, dtype=bool), 0.0, 2000.0).astype(np.float32)
    measured = statistics.perplexity.measure(labels=np.arange(4), outputs=outputs)
    assert not measured.invalid
    assert 1e300 < value_of(measured.sample) < math.inf
