"""What a spec may name."""

from __future__ import annotations

import pytest

from deploycheck.language import Vocabulary
from tests.language.writing import VOCABULARY


@pytest.mark.parametrize(
    ("loss", "task"), [("cross_entropy", "classification"), ("squared_error", "regression"), ("hinge", None), (3, None)]
)
def test_a_loss_selects_its_task(loss: object, task: str | None) -> None:
    found = VOCABULARY.task_of(loss)
    assert (found.name if found else None) == task


def test_what_an_epoch_reports_is_named_once() -> None:
    assert VOCABULARY.names("score") == ["validation.loss", "validation.accuracy", "validation.rmse"]
    assert Vocabulary().names("score") == ["validation.loss"]


def test_a_family_is_found_by_its_percentile() -> None:
    found = VOCABULARY.find("latency.p99.9")
    assert found is not None
    assert (found[0].name, found[1]) == ("latency", pytest.approx(0.999))
    assert VOCABULARY.find("latency") is None


@pytest.mark.parametrize("percentile", ["p0", "p0.0", "p99." + "9" * 20, "p0." + "0" * 400 + "1", "p100"])
def test_a_percentile_that_is_0_or_100_once_it_is_read_is_unknown(percentile: str) -> None:
    assert VOCABULARY.find(f"latency.{percentile}") is None


def test_a_metric_of_ones_own_does_not_replace_an_installed_one() -> None:
    metrics = VOCABULARY.metrics
    extended = VOCABULARY.extended({"accuracy": metrics["rmse"], "mine": metrics["rmse"]})
    assert extended.metrics["accuracy"] is metrics["accuracy"]
    assert extended.metrics["mine"] is metrics["rmse"]
