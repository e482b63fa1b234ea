"""The errors of answers that are numbers, against scikit-learn's on the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics

from deploycheck.checks import MetricFunction
from deploycheck.checks.regression import mae, r2, rmse
from deploycheck.verdict import bounds, value_of

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.normal(150, 70, 400).astype(np.float32)
OUTPUTS = (LABELS + RANDOM.normal(5, 30, 400)).astype(np.float32)[:, None]


def value(metric: MetricFunction, labels: np.ndarray = LABELS, outputs: np.ndarray = OUTPUTS) -> float:
    return value_of(metric.measure(labels=labels, outputs=outputs).sample)


@pytest.mark.parametrize(
    ("metric", "reference"),
    [(rmse, metrics.root_mean_squared_error), (mae, metrics.mean_absolute_error), (r2, metrics.r2_score)],
)
def test_it_is_what_scikit_learn_says(metric: MetricFunction, reference) -> None:
    expected = reference(LABELS.astype(float), OUTPUTS[:, 0].astype(float))
    assert value(metric) == pytest.approx(expected, rel=1e-9)
    low, high = bounds(metric.measure(labels=LABELS, outputs=OUTPUTS).sample, 0.95)
    assert low < expected < high
    assert high - low < 0.25 * abs(expected)


@given(arrays.arrays(np.float32, st.integers(2, 30), elements=st.floats(-1000, 1000, width=32)), st.floats(-50, 50))
def test_what_is_off_by_the_same_everywhere_is_off_by_that(labels: np.ndarray, by: float) -> None:
    outputs = (labels.astype(float) + by)[:, None]
    for metric in (rmse, mae):
        assert value(metric, labels, outputs) == pytest.approx(abs(by), abs=1e-6)


def test_always_answering_the_mean_explains_nothing_and_no_error_all() -> None:
    assert value(r2, LABELS, np.full((400, 1), LABELS.mean())) == pytest.approx(0, abs=1e-6)
    assert value(r2, LABELS, LABELS[:, None]) == 1
    assert math.isnan(value(r2, np.ones(5, np.float32), np.ones((5, 1), np.float32)))


def test_an_answer_that_is_no_number_decides_nothing() -> None:
    broken = np.where(np.arange(400)[:, None] == 7, np.nan, OUTPUTS)
    assert rmse.measure(labels=LABELS, outputs=broken).invalid
