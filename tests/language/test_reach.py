"""Thresholds that every model meets, or that none can meet, are refused; with the metrics that are built in."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploycheck.language import Dimension, Metric, Threshold, parse_threshold
from deploycheck.language.expect import read_threshold
from deploycheck.language.reach import check_reach
from deploycheck.language.threshold import ThresholdError
from tests.checks.built_in import built_in_metrics

METRICS = {metric.word.name: metric.word for metric in built_in_metrics()}

FREE = [
    ("accuracy", ">= 0 %"),
    ("accuracy", ">= -5 %"),
    ("accuracy", ">= 1e-300 %"),
    ("accuracy", "> 0 %"),
    ("accuracy", ">= 0 % @ point"),
    ("accuracy", ">= 0 % of reference"),
    ("accuracy", ">= 1e-9 % of baseline"),
    ("accuracy", ">= -1 x trained"),
    ("accuracy.worst_class", ">= 0 %"),
    ("smallest_class", ">= 0 %"),
    ("calibration_error", "<= 100 %"),
    ("calibration_error", "< 100 %"),
    ("error_rate", "<= 250 %"),
    ("accuracy_drop", "<= 100 pp"),
    ("accuracy_drop", "<= 100 % rel"),
    ("accuracy_drop", "<= 100 pp of baseline"),
    ("throughput", ">= 0 /s"),
    ("throughput", ">= 1e-300 /s"),
    ("speedup", ">= 0 x trained"),
    ("latency.p99", "<= 24 h"),
    ("size", "<= 1e9 GB"),
    ("errors", "<= 1e15"),
    ("rmse", "<= 1e38"),
    ("rmse", "<= 1e39"),
    ("r2", ">= -1e39"),
    ("r2", ">= -1e308"),
]
IMPOSSIBLE = [
    ("accuracy", ">= 101 %"),
    ("accuracy", "> 100 %"),
    ("accuracy", ">= 100 %"),
    ("accuracy", "> 100 % @ point"),
    ("accuracy", "== 97 %"),
    ("learned", ">= 101 % over majority"),
    ("agreement", ">= 100 %"),
    ("error_rate", "<= 0 %"),
    ("calibration_error", "< 0 % @ point"),
    ("accuracy_drop", "<= -101 pp"),
    ("accuracy", "== 100 %"),
    ("latency.p99", "<= 0 ms"),
    ("latency.p99", "<= 0 ms @ point"),
    ("latency.p99", "<= 0.1 ns"),
    ("latency.p99", "<= 1 ns"),
    ("cold_start", "<= 0 s"),
    ("throughput", ">= 1e9 /s"),
    ("throughput", ">= 1e9 /s @ point"),
    ("speedup", ">= 1e9 x trained"),
    ("perplexity", "<= 0.5"),
    ("rmse", "<= -1"),
    ("rmse", "<= 0"),
    ("r2", ">= 1.01"),
    ("size", "<= 0 B"),
    ("size_ratio", "<= 0"),
    ("errors", "== 0.5"),
    ("errors", "< 0"),
    ("parameters", "== -1"),
]
USUAL = [
    ("accuracy", ">= 97 %"),
    ("accuracy", ">= 100 % @ point"),
    ("accuracy", "== 100 % @ point"),
    ("accuracy", ">= 100 % of baseline"),
    ("accuracy", ">= 101 % of reference"),
    ("accuracy", ">= 99.9 %"),
    ("accuracy.over_seeds", ">= 100 %"),
    ("learned", ">= 0 % over majority"),
    ("learned", ">= 50 % over majority"),
    ("smallest_class", "> 0 %"),
    ("accuracy_drop", "<= 0 pp"),
    ("accuracy_drop", "<= -1 pp"),
    ("accuracy_drop", "<= 5 % rel"),
    ("error_rate", "<= 0.1 %"),
    ("errors", "== 0"),
    ("errors", "<= 0"),
    ("parity", "<= 0"),
    ("parity", "== 0"),
    ("latency.p99", "<= 3 ns"),
    ("latency.p99", "<= 1 ns @ point"),
    ("latency.p99", "<= 110 % of baseline"),
    ("r2", ">= -1"),
    ("r2", ">= 0 % of baseline"),
    ("size_ratio", "<= 0.27"),
    ("cold_start", "<= 10 s"),
    ("throughput", ">= 1 /min"),
]


def word(name: str) -> Metric:
    return METRICS.get(name) or METRICS[name.partition(".")[0]]


def why_refused(name: str, text: str) -> str:
    with pytest.raises(ThresholdError) as caught:
        read_threshold(text, word(name))
    return f"{caught.value.what}; {caught.value.hint}"


@pytest.mark.parametrize(("name", "text"), FREE)
def test_a_threshold_that_every_model_meets_is_refused(name: str, text: str) -> None:
    assert why_refused(name, text).startswith(f"every model meets '{text}'")


@pytest.mark.parametrize(("name", "text"), IMPOSSIBLE)
def test_a_threshold_that_no_model_can_meet_is_refused(name: str, text: str) -> None:
    assert why_refused(name, text).startswith(f"no model can meet '{text}'")


@pytest.mark.parametrize(("name", "text"), USUAL)
def test_a_threshold_that_tells_models_apart_is_accepted(name: str, text: str) -> None:
    assert read_threshold(text, word(name)).text == text


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("accuracy", ">= 0 %", "accuracy is from 0 % to 100 %; write a limit above 0 %"),
        ("accuracy", ">= 101 %", "accuracy is from 0 % to 100 %; write a limit inside of that range"),
        ("accuracy", ">= 100 %", "accuracy is measured on a sample, whose bounds never reach the limit; "),
        ("accuracy", ">= 100 %", "write a limit below 100 %, or '>= 100 % @ point'"),
        ("accuracy_drop", "<= 100 pp", "accuracy_drop is from -100 pp to 100 pp; write a limit below 100 pp"),
        ("accuracy", ">= 0 % of baseline", "a ratio of accuracy is at least 0 %"),
        ("size_ratio", "<= 0", "size_ratio is at least 0.000000001"),
        ("rmse", "<= 1e39", "rmse is below 1e+38; no measurement is beyond that; write a limit below 1e+38"),
        ("rmse", "<= 1e38", "rmse is below 1e+38"),
        ("latency.p99", "<= 100 h", "latency is below 24 h; no measurement is beyond that; write a limit below 24 h"),
        ("latency.p99", "<= 24 h", "latency is below 24 h"),
        ("throughput", ">= 1e9 /s", "throughput is below 1,000,000,000 /s; write a limit inside of that range"),
        ("throughput", ">= 0 /s", "throughput is at least 0 /s; write a limit above 0 /s"),
        ("speedup", ">= 1e9 x trained", "a ratio of speedup is below 1,000,000,000 x; write a limit inside"),
        ("r2", ">= -1e39", "r2 is above -1e+38; no measurement is beyond that; write a limit above -1e+38"),
        ("latency.p99", "<= 0 ms", "latency is at least 0.000001 ms; write a limit inside of that range"),
        ("r2", ">= 1.01", "r2 is at most 1; write a limit inside of that range"),
        ("accuracy", "== 97 %", "write '>= 97 %'"),
        ("errors", "== 0.5", "a count is a whole number"),
    ],
)
def test_the_range_is_said_and_what_to_write(name: str, text: str, says: str) -> None:
    assert says in why_refused(name, text)


@pytest.mark.parametrize(("name", "text"), [*FREE, *IMPOSSIBLE])
def test_no_infinite_end_is_named(name: str, text: str) -> None:
    assert "inf" not in why_refused(name, text).lower()


@pytest.mark.parametrize("text", ["<= -1e38", "< -1e308 @ point"])
def test_a_metric_without_an_end_is_above_the_least_that_can_be_measured(text: str) -> None:
    metric = Metric("mine", Dimension.NUMBER, "lower", frozenset({"train"}), sampled=True)
    why = f"no model can meet '{text}': mine is above -1e+38"
    assert _why(parse_threshold(text, metric), metric) == why


def test_the_error_points_at_the_threshold() -> None:
    with pytest.raises(ThresholdError) as caught:
        read_threshold("  >= 101 %", word("accuracy"))
    assert caught.value.column == 2


@given(
    st.sampled_from([">=", ">", "<=", "<"]),
    st.floats(-2, 2).map(lambda value: round(value, 6)),
    st.booleans(),
    st.lists(st.floats(0, 1), max_size=20),
)
def test_what_is_accepted_some_values_meet_and_some_miss(
    comparator: str, limit: float, sampled: bool, values: list[float]
) -> None:
    """Of the ends of the range, at least one meets what is accepted, and at least one misses it."""
    direction = "higher" if comparator.startswith(">") else "lower"
    metric = Metric("thing", Dimension.PROPORTION, direction, frozenset({"train"}), sampled=sampled)
    threshold = parse_threshold(f"{comparator} {limit * 100:f} %", metric)
    meets = [_meets(comparator, value, threshold.value) for value in (0.0, 1.0, *values)]
    refused = _why(threshold, metric)
    if not refused:
        assert meets[0] != meets[1]
    elif not sampled and not math.isclose(threshold.value, round(threshold.value), abs_tol=1e-7):
        assert all(meets) if refused.startswith("every") else not any(meets)


def _why(threshold: Threshold, metric: Metric) -> str:
    try:
        check_reach(threshold, metric, threshold.text)
    except ThresholdError as error:
        return error.what
    return ""


def _meets(comparator: str, value: float, limit: float) -> bool:
    return {">=": value >= limit, ">": value > limit, "<=": value <= limit, "<": value < limit}[comparator]
