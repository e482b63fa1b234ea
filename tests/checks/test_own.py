"""A metric of the user's own is decided by its kind, and refused where it returns something else."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest

from deploycheck.checks.own import own_metric
from deploycheck.errors import DeploycheckError
from deploycheck.language import Dimension, Threshold
from deploycheck.language.spec import OwnMetric
from deploycheck.verdict import Measurement, Outcome, Proportion, Resampled, Sample, bounds, decide, value_of

LABELS = np.array([0, 1, 1, 2, 0, 1])
OUTPUTS = np.eye(3, dtype=np.float32)[[0, 1, 2, 2, 0, 0]]


Kind = Literal["proportion", "mean", "statistic"]


def measured(kind: Kind, function: Callable[..., Any], **given: Any) -> Measurement:
    section = OwnMetric.model_validate({"use": "mine:f", "kind": kind, "direction": "lower", "with": given})
    return own_metric("mine", section, function).measure(labels=LABELS, outputs=OUTPUTS)


def wrong(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    return outputs.argmax(axis=1) != labels


def cost(labels: np.ndarray, outputs: np.ndarray, price: float) -> np.ndarray:
    return price * wrong(labels, outputs)


def total(labels: np.ndarray, outputs: np.ndarray) -> float:
    return float(wrong(labels, outputs).mean())


@pytest.mark.parametrize(
    ("kind", "sample"), [("proportion", Proportion), ("mean", Resampled), ("statistic", Resampled)]
)
def test_its_kind_says_which_sample_it_returns(kind: Kind, sample: type[Sample]) -> None:
    section = OwnMetric.model_validate({"use": "mine:f", "kind": kind, "direction": "lower"})
    assert own_metric("mine", section, wrong).sample is sample


def test_a_proportion_counts_the_examples_it_names() -> None:
    assert measured("proportion", wrong).sample == Proportion(2, 6)


def test_a_mean_is_of_a_number_for_each_example_and_is_given_its_arguments() -> None:
    assert value_of(measured("mean", cost, price=3).sample) == pytest.approx(1)


def test_a_statistic_is_computed_again_on_resampled_examples() -> None:
    sample = measured("statistic", total).sample
    low, high = bounds(sample, 0.9)
    assert value_of(sample) == pytest.approx(1 / 3)
    assert low < 1 / 3 < high


@pytest.mark.parametrize(
    ("kind", "returned"),
    [
        ("proportion", np.zeros(6)),
        ("proportion", np.zeros(5, bool)),
        ("proportion", 0.5),
        ("mean", 0.5),
        ("mean", np.zeros((6, 1))),
        ("mean", np.array(["a"] * 6)),
        ("statistic", np.zeros(6)),
        ("statistic", "0.5"),
        ("statistic", None),
    ],
)
def test_what_it_returns_must_be_what_its_kind_says(kind: Any, returned: Any) -> None:
    with pytest.raises(DeploycheckError, match=f"mine:f returned .* a {kind} is ") as error:
        measured(kind, lambda labels, outputs: returned)
    assert "`kind`" in error.value.hint


@pytest.mark.parametrize(("kind", "returned"), [("mean", np.array([0, 0, 0, 0, 0, np.nan])), ("statistic", np.inf)])
def test_a_value_that_is_not_finite_decides_nothing(kind: Any, returned: Any) -> None:
    assert measured(kind, lambda labels, outputs: returned).invalid


def test_its_word_has_the_unit_of_its_kind() -> None:
    for kind, dimension in (("proportion", Dimension.PROPORTION), ("mean", Dimension.NUMBER)):
        section = OwnMetric.model_validate({"use": "mine:f", "kind": kind, "direction": "higher"})
        word = section.word("mine")
        assert (word.name, word.dimension, word.direction) == ("mine", dimension, "higher")


def test_what_a_metric_raises_is_reported_with_its_place() -> None:
    def broken(labels: np.ndarray, outputs: np.ndarray) -> float:
        raise KeyError("boo")

    with pytest.raises(DeploycheckError, match=r"test_own\.py:\d+: mine:f raised KeyError: 'boo'"):
        measured("statistic", broken)


def test_what_cannot_be_called_is_not_a_metric() -> None:
    with pytest.raises(DeploycheckError, match="mine:f is int, expected a function of labels and outputs"):
        measured("mean", 7)  # type: ignore[arg-type]


def test_a_statistic_that_resamples_leave_undefined_says_so() -> None:
    def half(labels: np.ndarray, outputs: np.ndarray) -> float:
        return float("nan") if wrong(labels, outputs).mean() > 0.4 else 0.3

    verdict = decide(measured("statistic", half), Threshold("<=", 0.5, "", Dimension.NUMBER), 0.95)
    assert verdict.outcome is Outcome.UNDECIDED
    assert re.search(r"it is not a number on [\d,]+ of 2,000 resamples", verdict.reason)
