"""Thresholds: the grammar, units, where an error points, and what is tighter than what."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploycheck.language import Dimension, Metric, Threshold, parse_threshold
from deploycheck.language.threshold import (
    COMPARATORS,
    Relation,
    ThresholdError,
    parse_quantity,
    tighter_or_equal,
)
from deploycheck.language.vocabulary import UNITS


def metric(dimension: Dimension, direction: str = "lower") -> Metric:
    return Metric("thing", dimension, direction, frozenset({"train"}))


def parsed(text: str, dimension: Dimension = Dimension.PROPORTION) -> Threshold:
    return parse_threshold(text, metric(dimension))


def refused(text: str, dimension: Dimension = Dimension.PROPORTION, direction: str = "lower") -> ThresholdError:
    with pytest.raises(ThresholdError) as caught:
        parse_threshold(text, metric(dimension, direction))
    return caught.value


@pytest.mark.parametrize("comparator", COMPARATORS)
def test_every_comparator_is_kept(comparator: str) -> None:
    assert parsed(f"{comparator} 5 %").comparator == comparator


UNIT_VALUES = [
    (Dimension.TIME, "2 ns", 2e-9),
    (Dimension.TIME, "2 us", 2e-6),
    (Dimension.TIME, "2 µs", 2e-6),
    (Dimension.TIME, "2 ms", 2e-3),
    (Dimension.TIME, "2 s", 2.0),
    (Dimension.TIME, "2 min", 120.0),
    (Dimension.TIME, "2 h", 7200.0),
    (Dimension.SIZE, "2 B", 2.0),
    (Dimension.SIZE, "2 kB", 2e3),
    (Dimension.SIZE, "2 MB", 2e6),
    (Dimension.SIZE, "2 GB", 2e9),
    (Dimension.SIZE, "2 KiB", 2048.0),
    (Dimension.SIZE, "2 MiB", 2.0 * 1024**2),
    (Dimension.SIZE, "2 GiB", 2.0 * 1024**3),
    (Dimension.RATE, "2 /s", 2.0),
    (Dimension.RATE, "60 /min", 1.0),
    (Dimension.PROPORTION, "2 %", 0.02),
    (Dimension.DIFFERENCE, "2 pp", 0.02),
    (Dimension.DIFFERENCE, "2 % rel", 0.02),
    (Dimension.MULTIPLE, "2 x", 2.0),
    (Dimension.COUNT, "2", 2.0),
    (Dimension.NUMBER, "2", 2.0),
]


@pytest.mark.parametrize(("dimension", "text", "value"), UNIT_VALUES)
def test_each_unit_is_read_into_the_base_unit(dimension: Dimension, text: str, value: float) -> None:
    assert parsed(f"<= {text}", dimension).value == pytest.approx(value, rel=1e-12)


def test_every_unit_of_the_language_has_a_row_above() -> None:
    assert len(UNIT_VALUES) == sum(map(len, UNITS.values()))


@pytest.mark.parametrize(
    ("number", "value"),
    [
        ("5", 5.0),
        ("5.", 5.0),
        (".5", 0.5),
        ("1e-4", 1e-4),
        ("1E3", 1e3),
        ("-2", -2.0),
        ("+2", 2.0),
        ("1.5e+2", 150.0),
    ],
)
def test_a_number_has_any_of_its_usual_forms(number: str, value: float) -> None:
    assert parsed(f"<= {number}", Dimension.NUMBER).value == value


@pytest.mark.parametrize("text", ["<=5%", "<= 5%", "<=5 %", "  <=  5   %  "])
def test_spaces_between_parts_are_free(text: str) -> None:
    assert parsed(text) == parsed("<= 5 %")


def test_the_text_is_kept_with_single_spaces() -> None:
    assert parsed(" <=  5   % @  95 %").text == "<= 5 % @ 95 %"


def test_a_confidence_is_a_fraction() -> None:
    assert parsed("<= 5 % @ 99 %").confidence == pytest.approx(0.99)
    assert parsed("<= 5 %").confidence is None


def test_at_point_compares_the_bare_value() -> None:
    assert parsed("<= 5 % @ point").point
    assert not parsed("<= 5 % @ 95 %").point


@pytest.mark.parametrize("confidence", ["49.9 %", "100 %", "120 %", "-95 %"])
def test_a_confidence_outside_of_50_to_100_is_refused_at_its_number(confidence: str) -> None:
    error = refused(f"<= 5 % @ {confidence}")
    assert "at least 50 % and under 100 %" in error.what
    assert error.column == 9


def test_a_confidence_of_50_is_allowed() -> None:
    assert parsed("<= 5 % @ 50 %").confidence == 0.5


def test_a_share_of_a_reference_is_a_proportion_whatever_the_metric() -> None:
    threshold = parsed(">= 99 % of reference", Dimension.TIME)
    assert threshold.relation == Relation("of", "reference")
    assert threshold.dimension is Dimension.PROPORTION
    assert threshold.value == pytest.approx(0.99)


def test_over_keeps_the_metrics_own_dimension() -> None:
    threshold = parsed(">= 50 % over majority")
    assert threshold.relation == Relation("over", "majority")
    assert threshold.dimension is Dimension.PROPORTION


def test_a_multiple_of_another_variant_names_it() -> None:
    threshold = parsed("<= 0.5 x student-int8 @ 90 %", Dimension.TIME)
    assert threshold.relation == Relation("x", "student-int8")
    assert threshold.dimension is Dimension.MULTIPLE
    assert (threshold.value, threshold.confidence) == (0.5, 0.9)


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("", 0, "expected a comparator"),
        ("~ 5 %", 0, "unexpected '~'"),
        ("=> 5 %", 0, "unexpected '='"),
        (">=", 2, "expected a number, found the end"),
        (">= %", 3, "expected a number, found '%'"),
        (">= 5", 4, "found none"),
        (">= 5 ms", 5, "found 'ms'"),
        (">= 5 % $", 7, "unexpected '$'"),
        (">= 5 % 6", 7, "unexpected '6' after"),
        (">= 5 % <= 7 %", 7, "unexpected '<=' after"),
        (">= 5 % of", 9, "expected a name after 'of'"),
        (">= 5 % over @ 95 %", 12, "expected a name after 'over'"),
        (">= 5 % @", 8, "expected a confidence"),
        (">= 5 % @ high", 9, "expected a confidence"),
        (">= 5 % @ 95", 11, "a confidence is in %"),
        (">= 5 % @ 95 % @ 95 %", 14, "unexpected '@' after"),
        (">= 1e999 %", 3, "too large"),
    ],
)
def test_an_error_points_at_the_column_that_is_wrong(text: str, column: int, words: str) -> None:
    error = refused(text)
    assert words in error.what
    assert error.column == column


@pytest.mark.parametrize(("direction", "meant"), [("higher", ">="), ("lower", "<=")])
def test_a_bare_number_says_which_comparator_was_probably_meant(direction: str, meant: str) -> None:
    error = refused("97 %", direction=direction)
    assert "needs a comparator" in error.what
    assert error.hint == f"did you mean '{meant} 97 %'?"


@pytest.mark.parametrize("written", ["1", "1 %"])
def test_a_difference_in_anything_but_pp_or_rel_is_refused_with_what_was_meant(written: str) -> None:
    error = refused(f"<= {written}", Dimension.DIFFERENCE)
    assert "pp (percentage points) or % rel" in error.what
    assert error.hint == "did you mean '1 pp'?"


def test_pp_and_rel_are_different_units() -> None:
    assert parsed("<= 1 pp", Dimension.DIFFERENCE) != parsed("<= 1 % rel", Dimension.DIFFERENCE)


@pytest.mark.parametrize("dimension", list(Dimension))
def test_a_unit_of_another_dimension_is_refused_and_the_right_ones_are_named(dimension: Dimension) -> None:
    for other, units in UNITS.items():
        for unit in set(units) - set(UNITS[dimension]) - {""}:
            if other is not dimension:
                what = refused(f"<= 5 {unit}", dimension).what
                assert all(name in what for name in UNITS[dimension] if name), (unit, what)


def test_a_quantity_is_read_into_the_base_unit() -> None:
    assert parse_quantity("2 ms", Dimension.TIME) == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("text", "column"), [("ms", 0), ("2", 1), ("2 GB", 2), ("2 ms ms", 5), ("two ms", 0), (">= 2 ms", 0)]
)
def test_a_wrong_quantity_is_refused_at_its_column(text: str, column: int) -> None:
    with pytest.raises(ThresholdError) as caught:
        parse_quantity(text, Dimension.TIME)
    assert caught.value.column == column


@pytest.mark.parametrize("number", ["1e400", "1e9999999", "1e99999999999999999999"])
def test_a_quantity_too_large_for_a_float_is_refused(number: str) -> None:
    with pytest.raises(ThresholdError, match="too large"):
        parse_quantity(f"{number} s", Dimension.TIME)


def test_a_quantity_too_small_for_a_float_is_nothing() -> None:
    assert parse_quantity("1e-99999999999999999999 s", Dimension.TIME) == 0


NAMES = st.sampled_from(["reference", "baseline", "trained", "int8"])
NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12),
    st.integers(-10_000, 10_000),
    st.decimals(-1000, 1000, places=3, allow_nan=False),
)


@st.composite
def thresholds(draw: st.DrawFn, dimensions: tuple[Dimension, ...] = tuple(Dimension)) -> tuple[Threshold, Metric]:
    measured = metric(draw(st.sampled_from(dimensions)))
    relation = draw(st.sampled_from(["", "of", "over", "x"]))
    own = list(UNITS[measured.dimension])
    of = own if measured.dimension is Dimension.DIFFERENCE else ["%"]
    units = {"of": of, "x": ["x"]}.get(relation, own)
    number, unit, name = draw(NUMBERS), draw(st.sampled_from(units)), draw(NAMES)
    tail = "" if not relation else name if relation == "x" else f"{relation} {name}"
    hundredths = draw(st.integers(5000, 9999)) / 100
    confidence = draw(st.sampled_from(["", "@ point", f"@ {hundredths} %"]))
    text = f"{draw(st.sampled_from(COMPARATORS))} {number} {unit} {tail} {confidence}"
    return parse_threshold(text, measured), measured


@given(thresholds())
def test_a_threshold_written_out_parses_to_itself(drawn: tuple[Threshold, Metric]) -> None:
    threshold, measured = drawn
    assert parse_threshold(str(threshold), measured) == threshold


@given(st.text(alphabet=" <>=@%xofverpint0123456789.-+emsµ/\n\0\U0001f600٣"), st.sampled_from(Dimension))
def test_any_text_is_a_threshold_or_a_threshold_error_within_it(text: str, dimension: Dimension) -> None:
    column, value = 0, 0.0
    try:
        value = parse_threshold(text, metric(dimension)).value
    except ThresholdError as error:
        column = error.column
    assert 0 <= column <= len(text)
    assert math.isfinite(value)


SMALL = st.builds(
    Threshold,
    comparator=st.sampled_from(COMPARATORS),
    value=st.sampled_from([-1.0, 0.0, 1.0, 2.0]),
    unit=st.sampled_from(["pp", "% rel"]),
    dimension=st.just(Dimension.DIFFERENCE),
    relation=st.sampled_from([None, Relation("of", "reference")]),
    confidence=st.sampled_from([None, 0.9, 0.95, 0.99]),
    point=st.booleans(),
)
"""Few values, so that drawing comparable ones is likely."""


@given(SMALL)
def test_tighter_or_equal_is_reflexive(threshold: Threshold) -> None:
    assert tighter_or_equal(threshold, 0.95, threshold, 0.95)


@given(SMALL, SMALL, SMALL)
def test_tighter_or_equal_is_transitive(a: Threshold, b: Threshold, c: Threshold) -> None:
    if tighter_or_equal(a, 0.95, b, 0.95) and tighter_or_equal(b, 0.95, c, 0.95):
        assert tighter_or_equal(a, 0.95, c, 0.95)


def demand(threshold: Threshold, confidence: float) -> tuple[object, ...]:
    """What a threshold asks: two that differ only in how they say it are equal."""
    level = "point" if threshold.point else threshold.confidence or confidence
    return threshold.comparator, threshold.value, threshold.unit, threshold.relation, level


@given(SMALL, SMALL)
def test_two_thresholds_each_tighter_or_equal_to_the_other_ask_the_same(a: Threshold, b: Threshold) -> None:
    if tighter_or_equal(a, 0.95, b, 0.95) and tighter_or_equal(b, 0.95, a, 0.95):
        assert demand(a, 0.95) == demand(b, 0.95)


@pytest.mark.parametrize(
    ("child", "parent", "tighter"),
    [
        (">= 98 %", ">= 97 %", True),
        (">= 96 %", ">= 97 %", False),
        ("> 97 %", ">= 97 %", True),
        (">= 97 %", "> 97 %", False),
        ("<= 1 %", "<= 2 %", True),
        ("< 2 %", "<= 2 %", True),
        ("<= 2 %", "< 2 %", False),
        ("== 2 %", "<= 2 %", True),
        ("<= 2 %", "== 2 %", False),
        ("<= 97 %", ">= 97 %", False),
        (">= 97 % @ 99 %", ">= 97 % @ 95 %", True),
        (">= 97 % @ 90 %", ">= 97 % @ 95 %", False),
        (">= 97 % @ 90 %", ">= 97 %", False),
        (">= 97 % @ point", ">= 97 %", False),
        (">= 97 % @ 50 %", ">= 97 % @ point", True),
        (">= 99 % of reference", ">= 98 % of reference", True),
        (">= 99 % of reference", ">= 98 % of baseline", False),
        (">= 99 %", ">= 98 % of baseline", False),
    ],
)
def test_what_is_tighter_than_what(child: str, parent: str, tighter: bool) -> None:
    assert tighter_or_equal(parsed(child), 0.95, parsed(parent), 0.95) is tighter


def test_different_units_of_one_dimension_compare_by_value() -> None:
    assert tighter_or_equal(parsed("<= 900 ms", Dimension.TIME), 0.95, parsed("<= 1 s", Dimension.TIME), 0.95)
    assert not tighter_or_equal(parsed("<= 1100 ms", Dimension.TIME), 0.95, parsed("<= 1 s", Dimension.TIME), 0.95)


def test_equal_thresholds_in_different_units_are_tighter_or_equal_both_ways() -> None:
    for one, other in [("<= 20 ms", "<= 0.02 s"), ("<= 0.3 s", "<= 300 ms"), ("<= 7 us", "<= 7000 ns")]:
        a, b = parsed(one, Dimension.TIME), parsed(other, Dimension.TIME)
        assert tighter_or_equal(a, 0.95, b, 0.95), (one, other)
        assert tighter_or_equal(b, 0.95, a, 0.95), (other, one)


def test_points_and_relative_percent_never_compare() -> None:
    points, relative = (parsed(f"<= 1 {unit}", Dimension.DIFFERENCE) for unit in ("pp", "% rel"))
    assert not tighter_or_equal(points, 0.95, relative, 0.95)
    assert not tighter_or_equal(relative, 0.95, points, 0.95)


@pytest.mark.parametrize("text", [">= ９７ %", ">= 9７ %", ">= ٩ %", ">= 97 % @ ９５ %"])
def test_digits_of_other_scripts_are_refused(text: str) -> None:
    error = refused(text, direction="higher")
    assert "unexpected" in error.what
    assert error.hint == "write the digits 0 to 9"
