"""Thresholds that can't be decided are reported before anything is run, with the number that would be enough."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from deploycheck.runner.lint import Finding, lint, stalls
from deploycheck.stages.data import Dataset
from deploycheck.stages.examples import Examples
from tests.planning import EXTENSIONS, HEAD, plan

SERVE = """\
compress:
  variants: {{int8: {{quantize: {{weights: int8}}}}}}
serve:
  variants: [int8]
  load: {{{load}}}
  expect: {{{expect}}}
promote: {{model: digits, to: staging}}
"""
TRAIN = 'expect: {accuracy: ">= 97 %"}'


def of_test(count: int, wards: int = 1) -> Examples:
    labels = np.arange(count) % 10
    ward = np.array([f"ward {row % wards}" for row in range(count)])
    return Examples({"image": np.zeros((count, 1))}, labels, {"ward": ward})


def findings(
    text: str, folder: Path, test: Examples | None = None, floors: Mapping[str, float] | None = None
) -> list[Finding]:
    dataset = Dataset({"test": test}, {}) if test else None
    return list(lint(plan(text, folder), EXTENSIONS, dataset, floors or {}))


def served(expect: str, load: str = "rate: 100 /s") -> str:
    return HEAD + SERVE.format(load=load, expect=expect)


@pytest.mark.parametrize(
    ("expect", "load", "what", "hint"),
    [
        (
            'latency.p99: "<= 20 ms"',
            "rate: 100 /s, requests: 300",
            "latency.p99 can't be decided at 0.95 confidence: it needs 600 requests, none of them over the limit, "
            "and there are 300 at most",
            "set `requests: 600` or more, which takes 6 s at 100 /s",
        ),
        (
            'latency.p99: "<= 20 ms @ 99 %"',
            "scenario: single_stream, requests: 600",
            "latency.p99 can't be decided at 0.99 confidence",
            "set `requests: 922`",
        ),
        (
            'error_rate: "<= 0.1 %"',
            "rate: 100 /s, requests: 3000",
            "error_rate can't be decided at 0.95 confidence: it needs 3,788 requests",
            "set `requests: 3788` or more",
        ),
        (
            'latency.p99.9: "<= 110 % of baseline"',
            "rate: 100 /s",
            "latency.p99.9 can't be decided at 0.95 confidence: at this percentile 60 rounds give 1 comparison of two "
            "models, and it needs 8",
            "compare a lower percentile",
        ),
    ],
)
def test_a_budget_too_small_for_its_threshold_is_an_error_at_its_place(
    expect: str, load: str, what: str, hint: str, tmp_path: Path
) -> None:
    (found,) = findings(served(expect, load), tmp_path)
    assert found.severity == "error"
    assert found.error.what.startswith(what)
    assert (found.error.hint or "").startswith(hint)
    assert "expect" in found.error.place.text
    assert found.error.place.text[found.error.place.column - 1 :].startswith(expect.partition(": ")[2][0])


@pytest.mark.parametrize(
    ("expect", "load"),
    [
        ('latency.p99: "<= 20 ms"', "rate: 100 /s, requests: 600"),
        ('latency.p99: "<= 20 ms @ point"', "rate: 100 /s, requests: 3"),
        ('error_rate: "<= 0.1 %"', "rate: 100 /s"),
        ('latency.p99: "<= 110 % of baseline"', "rate: 100 /s"),
        ('throughput: ">= 5 /s"', "rate: 100 /s, requests: 3"),
        ('errors: "== 0"', "rate: 100 /s, requests: 3"),
    ],
)
def test_a_threshold_that_can_be_decided_gets_no_finding(expect: str, load: str, tmp_path: Path) -> None:
    assert findings(served(expect, load), tmp_path) == []


@pytest.mark.parametrize(
    ("expect", "floors", "inside"),
    [
        ('throughput: ">= 99 % of baseline"', {"throughput": 0.02}, True),
        ('throughput: ">= 97 % of baseline"', {"throughput": 0.02}, False),
        ('latency.p50: "<= 101 % of baseline"', {"latency.p50": 0.05}, True),
        ('latency.p50: "<= 110 % of baseline"', {"latency.p50": 0.05}, False),
        ('latency.p50: "<= 101 % of baseline"', {"latency.p99": 0.05}, False),
        ('throughput: ">= 99 /s"', {"throughput": 0.02}, False),
    ],
)
def test_a_threshold_within_the_noise_gets_a_warning(
    expect: str, floors: Mapping[str, float], inside: bool, tmp_path: Path
) -> None:
    found = findings(served(expect), tmp_path, floors=floors)
    assert [each.severity for each in found] == ["warning"] * inside
    if inside:
        assert "is within the noise of this machine" in found[0].error.what
        assert "an equal model passes from " in (found[0].error.hint or "")


def test_a_test_set_too_small_for_its_threshold_is_an_error_with_the_number_that_would_be_enough(
    tmp_path: Path,
) -> None:
    (found,) = findings(HEAD, tmp_path, of_test(60))
    assert found.error.what == "even a model without error would not pass on the 60 test examples"
    assert "about 39 more examples like these would decide it" in (found.error.hint or "")
    assert findings(HEAD, tmp_path, of_test(99)) == []
    assert findings(HEAD, tmp_path) == []


def test_each_slice_must_be_large_enough(tmp_path: Path) -> None:
    text = HEAD.replace(TRAIN, 'expect: {accuracy: {threshold: ">= 60 %", slices: {by: ward, at_least: 30}}}')
    (found,) = findings(text, tmp_path, of_test(200, wards=8))
    assert "has 25 examples, at least 30 are asked for; 8 slices are too small" in (found.error.hint or "")
    assert findings(text, tmp_path, of_test(240, wards=8)) == []


def test_a_comparison_is_tried_with_an_equal_model(tmp_path: Path) -> None:
    text = HEAD + 'compress: {variants: {int8: {quantize: {weights: int8}}}, expect: {accuracy_drop: "<= 1 pp"}}\n'
    text = text.replace(TRAIN, 'expect: {learned: ">= 1 % over majority"}')
    (found,) = findings(text, tmp_path, of_test(100))
    assert found.error.what.startswith("even a model equal to the other would not pass on the 100 test")
    assert "would decide it" in (found.error.hint or "")
    assert findings(text, tmp_path, of_test(800)) == []


def test_metrics_that_only_a_model_can_give_get_no_finding(tmp_path: Path) -> None:
    text = HEAD.replace(TRAIN, 'expect: {f1.macro: ">= 97 %", log_loss: "<= 0.1"}')
    assert findings(text, tmp_path, of_test(50)) == []
    numbers = Examples({"image": np.zeros((50, 1))}, np.linspace(0, 1, 50, dtype=np.float32))
    text = HEAD.replace(TRAIN, 'expect: {rmse: "<= 60"}').replace("train:", "train:\n  loss: squared_error", 1)
    assert findings(text, tmp_path, numbers) == []


def test_a_test_set_too_small_for_a_relative_threshold_gets_only_a_warning(tmp_path: Path) -> None:
    text = HEAD.replace(TRAIN, 'expect: {accuracy: ">= 98 % of baseline"}') + "promote: {model: digits, to: staging}\n"
    (found,) = findings(text, tmp_path, of_test(60))
    assert found.severity == "warning"
    assert "against one that is without error too" in found.error.what


def test_a_threshold_that_only_a_larger_budget_can_decide_is_an_error(tmp_path: Path) -> None:
    (found,) = findings(served('latency.p50: "<= 1 ms"', "rate: 100 /s, requests: 40"), tmp_path)
    assert found.severity == "error"
    assert "it needs 60 requests" in found.error.what


def test_a_top_k_of_all_classes_is_an_error(tmp_path: Path) -> None:
    (found,) = findings(HEAD.replace(TRAIN, 'expect: {accuracy.top10: ">= 97 %"}'), tmp_path, of_test(500))
    assert (found.severity, "every label is among the 10 highest logits" in found.error.what) == ("error", True)


def test_too_few_seeds_for_a_check_over_seeds_is_an_error(tmp_path: Path) -> None:
    text = HEAD.replace(TRAIN, 'expect: {accuracy.over_seeds: ">= 97 %"}')
    (found,) = findings(text, tmp_path)
    assert (found.error.what, found.severity) == ("1 seed can't decide it: it needs at least 3", "error")


@pytest.mark.parametrize(
    ("load", "text"),
    [
        ("rate: 100 /s", "a load of 10 s sees a stall of the server that comes every 10.5 s with a chance of 0.95"),
        ("rate: 100 /s", "and one that comes every 20 s with a chance of 0.5"),
        ("rate: 100 /s, requests: 400", "a load of 4 s"),
        ("rate: 100 /s, requests: 40000", "a load of 10 s"),
        ("rate: 100 /s, requests: 400, min_duration: 2 min", "a load of 120 s"),
        ("scenario: single_stream, requests: 400", ""),
    ],
)
def test_the_rarest_stall_that_a_load_sees_is_noted(load: str, text: str, tmp_path: Path) -> None:
    spec = plan(served('latency.p99: "<= 20 ms"', load), tmp_path)
    notes = list(stalls(spec, EXTENSIONS))
    assert text in "".join(str(note.error) for note in notes)
    assert [note.severity for note in notes] == (["note"] if text else [])


def test_a_load_without_a_check_of_latency_is_not_noted(tmp_path: Path) -> None:
    assert list(stalls(plan(served('errors: "== 0"'), tmp_path), EXTENSIONS)) == []
