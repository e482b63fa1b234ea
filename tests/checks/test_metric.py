from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np
import pytest

from deploycheck.checks import SUBJECTS, MetricFunction, metric
from deploycheck.errors import DeploycheckError
from deploycheck.language import Dimension
from deploycheck.verdict import (
    Blocks,
    Events,
    Exact,
    Measurement,
    Paired,
    Proportion,
    Quantile,
    Repeats,
    Resampled,
    Sample,
    WorstOf,
)
from tests.checks.built_in import built_in_metrics

DECLARED: dict[str, Any] = {
    "dimension": Dimension.COUNT,
    "direction": "lower",
    "stages": ["train"],
    "sample": Exact,
}


def taking(parameters: str) -> Callable[..., Measurement]:
    """Return a function of these parameters."""
    made: Callable[..., Measurement] = eval(f"lambda {parameters}: None")
    return made


def test_a_decorated_function_is_a_metric_and_says_what_it_looks_at() -> None:
    @metric("wrong", **DECLARED, relations=frozenset({"over majority"}))
    def wrong(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
        return Measurement(Exact(float((outputs.argmax(axis=-1) != labels).sum())))

    assert isinstance(wrong, MetricFunction)
    assert wrong.subjects == {"labels", "outputs"}
    assert (wrong.word.name, wrong.word.dimension, wrong.word.direction) == ("wrong", Dimension.COUNT, "lower")
    assert wrong.sample is Exact
    assert wrong.word.stages == {"train"}
    assert wrong.word.relations == {"over majority"}
    assert not wrong.word.percentiles
    measured = wrong.measure(labels=np.array([0, 1]), outputs=np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert measured == Measurement(Exact(1))


@pytest.mark.parametrize(
    ("returned", "found"),
    [(Measurement(Proportion(1, 2)), "Proportion"), (Exact(1), "Exact"), (0.5, "float"), (None, "NoneType")],
    ids=["another sample", "no measurement", "a number", "nothing"],
)
def test_a_metric_that_returns_something_other_than_it_declares_is_named(returned: Any, found: str) -> None:
    declared = metric("odd", **DECLARED)(lambda labels: returned)
    with pytest.raises(DeploycheckError, match=f"metric 'odd' returned {found}, expected a Measurement of Exact"):
        declared.measure(labels=np.zeros(1))


@pytest.mark.parametrize(
    ("parameters", "said", "task"),
    [
        ("labels", {}, "classification"),
        ("outputs", {}, "classification"),
        ("reference_outputs", {}, "classification"),
        ("labels, outputs", {"task": "regression"}, "regression"),
        ("labels, outputs", {"task": ""}, ""),
        ("artifact", {}, ""),
        ("training", {"task": "classification"}, "classification"),
    ],
)
def test_a_metric_of_answers_is_for_classification_unless_it_says_another_task(
    parameters: str, said: dict[str, str], task: str
) -> None:
    assert metric("any", **DECLARED, **said)(taking(parameters)).word.task == task


def test_a_percentile_is_not_a_subject() -> None:
    @metric("wait", **DECLARED, percentiles=True)
    def wait(load: Any, percentile: float) -> Measurement:
        return Measurement(Exact(percentile))

    assert wait.subjects == {"load"}
    assert wait.word.percentiles


@pytest.mark.parametrize("subject", sorted(SUBJECTS))
def test_every_subject_may_be_asked_for(subject: str) -> None:
    assert metric("any", **DECLARED)(taking(subject)).subjects == {subject}


@pytest.mark.parametrize("parameters", ["lables", "labels, model", "*labels_", "**anything", "self, labels"])
def test_a_parameter_that_nothing_makes_is_refused_by_name(parameters: str) -> None:
    with pytest.raises(TypeError, match=r"metric 'odd' asks for \['\w+'\]; there are \[.*'reference_outputs'.*\]"):
        metric("odd", **DECLARED)(taking(parameters))


def test_a_word_that_the_language_does_not_have_is_refused() -> None:
    with pytest.raises(TypeError, match="unit"):
        metric("odd", **DECLARED, unit="ms")(taking("labels"))


@pytest.mark.parametrize("missing", DECLARED)
def test_nothing_of_a_declaration_is_guessed(missing: str) -> None:
    rest = {name: value for name, value in DECLARED.items() if name != missing}
    with pytest.raises(TypeError, match=missing):
        metric("odd", **rest)


@pytest.mark.parametrize(
    ("declared", "parameters"),
    [
        ({"direction": "up"}, "labels"),
        ({"stages": []}, "labels"),
        ({"stages": "train"}, "labels"),
        ({"percentiles": True}, "load"),
        ({}, "load, percentile"),
    ],
    ids=["direction", "stage", "letters", "no-percentile", "no-family"],
)
def test_a_declaration_that_cannot_work_is_refused(declared: dict[str, Any], parameters: str) -> None:
    with pytest.raises((TypeError, ValueError)):
        metric("odd", **{**DECLARED, **declared})(taking(parameters))


HIGHER_IS_BETTER = {
    "smallest_class",
    "sparsity",
    "accuracy",
    "accuracy.worst_class",
    "accuracy.top3",
    "accuracy.top5",
    "accuracy.top10",
    "accuracy.over_seeds",
    "learned",
    "agreement",
    "precision.macro",
    "recall.macro",
    "f1.macro",
    "f1.micro",
    "auc",
    "r2",
    "throughput",
    "speedup",
    "quantized_share",
}
LOWER_IS_BETTER = {
    "missing_values",
    "duplicates_across_splits",
    "accuracy_drop",
    "log_loss",
    "perplexity",
    "bits_per_byte",
    "calibration_error",
    "rmse",
    "mae",
    "size",
    "size_ratio",
    "parameters",
    "latency",
    "error_rate",
    "errors",
    "parity",
    "cold_start",
    "memory",
    "recompilations",
}


def test_the_built_in_metrics_are_those_of_the_six_families() -> None:
    directions = dict.fromkeys(HIGHER_IS_BETTER, "higher") | dict.fromkeys(LOWER_IS_BETTER, "lower")
    assert {each.word.name: each.word.direction for each in built_in_metrics()} == directions


SAMPLES: dict[str, type[Sample]] = {
    "missing_values": Exact,
    "accuracy": Proportion,
    "accuracy.worst_class": WorstOf,
    "accuracy.over_seeds": Repeats,
    "accuracy_drop": Paired,
    "f1.macro": Resampled,
    "rmse": Resampled,
    "size": Exact,
    "latency": Quantile,
    "error_rate": Events,
    "throughput": Blocks,
}


def test_a_built_in_metric_declares_the_sample_by_which_it_is_decided() -> None:
    declared = {each.word.name: each.sample for each in built_in_metrics()}
    assert {name: declared[name] for name in SAMPLES} == SAMPLES


@pytest.mark.parametrize("each", built_in_metrics(), ids=lambda each: each.word.name)
def test_a_metric_takes_a_percentile_where_its_word_is_a_family(each: MetricFunction) -> None:
    parameters = set(signature(each.function).parameters)
    assert parameters - each.subjects == ({"percentile"} if each.word.percentiles else set())
    assert each.function.__doc__
