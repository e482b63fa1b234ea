from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np
import pytest

from deploycheck.builtin import pytest_deploycheck_metrics
from deploycheck.checks import SUBJECTS, MetricFunction, metric
from deploycheck.language import Dimension
from deploycheck.runner.extensions import builtin_extensions
from deploycheck.verdict import Exact, Measurement

DECLARED: dict[str, Any] = {"dimension": Dimension.COUNT, "direction": "lower", "stages": ["train"]}


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
    assert wrong.word.stages == {"train"}
    assert wrong.word.relations == {"over majority"}
    assert not wrong.word.percentiles
    measured = wrong.measure(labels=np.array([0, 1]), outputs=np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert measured == Measurement(Exact(1))


def test_a_percentile_is_no_subject_it_is_given_besides() -> None:
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
        ({"stages": ["trian"]}, "labels"),
        ({"stages": "train"}, "labels"),
        ({"percentiles": True}, "load"),
        ({}, "load, percentile"),
    ],
    ids=["direction", "stage", "letters", "no-percentile", "no-family"],
)
def test_a_declaration_that_cannot_work_is_refused(declared: dict[str, Any], parameters: str) -> None:
    with pytest.raises((TypeError, ValueError)):
        metric("odd", **{**DECLARED, **declared})(taking(parameters))


def test_the_built_in_metrics_are_those_of_the_six_families() -> None:
    assert {each.word.name: each.word.direction for each in pytest_deploycheck_metrics()} == {
        "missing_values": "lower", "duplicates_across_splits": "lower", "smallest_class": "higher",
        "accuracy": "higher", "accuracy.worst_class": "higher", "learned": "higher", "accuracy_drop": "lower",
        "accuracy.top3": "higher", "accuracy.top5": "higher", "accuracy.top10": "higher",
        "accuracy.over_seeds": "higher", "agreement": "higher",
        "precision.macro": "higher", "recall.macro": "higher", "f1.macro": "higher", "f1.micro": "higher",
        "auc": "higher", "log_loss": "lower", "perplexity": "lower", "bits_per_byte": "lower",
        "rmse": "lower", "mae": "lower", "r2": "higher",
        "calibration_error": "lower", "error_rate": "lower", "speedup": "higher",
        "size": "lower", "size_ratio": "lower", "parameters": "lower",
        "latency": "lower", "throughput": "higher", "errors": "lower", "parity": "lower", "cold_start": "lower",
        "memory": "lower", "recompilations": "lower",
    }  # fmt: skip
    assert len(builtin_extensions().metrics) == len(pytest_deploycheck_metrics())


@pytest.mark.parametrize("each", pytest_deploycheck_metrics(), ids=lambda each: each.word.name)
def test_a_metric_takes_a_percentile_where_its_word_is_a_family(each: MetricFunction) -> None:
    parameters = set(signature(each.measure).parameters)
    assert parameters - each.subjects == ({"percentile"} if each.word.percentiles else set())
    assert each.measure.__doc__
