from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploycheck.evidence.show import BASE_UNITS, quantity, with_interval
from deploycheck.language import Dimension
from deploycheck.language.vocabulary import UNITS

SCALED = [dimension for dimension in Dimension if dimension is not Dimension.COUNT]


@pytest.mark.parametrize(
    ("value", "dimension", "shown"),
    [
        (0.00321, Dimension.TIME, "3.21 ms"),
        (0.000_25, Dimension.TIME, "250 us"),
        (1e-7, Dimension.TIME, "0.1 us"),
        (0.001, Dimension.TIME, "1 ms"),
        (1.0, Dimension.TIME, "1 s"),
        (90.0, Dimension.TIME, "90 s"),
        (-0.004, Dimension.TIME, "-4 ms"),
        (0, Dimension.TIME, "0 us"),
        (512, Dimension.SIZE, "512 B"),
        (34_200, Dimension.SIZE, "34.2 kB"),
        (1e6, Dimension.SIZE, "1 MB"),
        (2.5e9, Dimension.SIZE, "2.5 GB"),
        (5e12, Dimension.SIZE, "5,000 GB"),
        (0.5, Dimension.RATE, "0.5 /s"),
        (12_345.6, Dimension.RATE, "12,346 /s"),
        (0.979, Dimension.PROPORTION, "97.9 %"),
        (1.0, Dimension.PROPORTION, "100 %"),
        (-0.12, Dimension.PROPORTION, "-12 %"),
        (0.0125, Dimension.DIFFERENCE, "1.25 pp"),
        (-0.0025, Dimension.DIFFERENCE, "-0.25 pp"),
        (0.4, Dimension.MULTIPLE, "0.4 x"),
        (0, Dimension.COUNT, "0"),
        (12_345, Dimension.COUNT, "12,345"),
        (7e-7, Dimension.NUMBER, "7e-07"),
        (0.512, Dimension.NUMBER, "0.512"),
    ],
)
def test_a_quantity_is_shown_in_the_unit_people_read(value: float, dimension: Dimension, shown: str) -> None:
    assert quantity(value, dimension) == shown


@pytest.mark.parametrize(
    ("value", "low", "high", "dimension", "shown"),
    [
        (0.992, 0.984, 0.996, Dimension.PROPORTION, "99.2 % (98.4 to 99.6)"),
        (0.0009, 0.0008, 0.0012, Dimension.TIME, "900 us (800 to 1,200)"),
        (0.0012, 0.0008, 0.002, Dimension.TIME, "1.2 ms (0.8 to 2)"),
        (0.0031, 0.003, 0.5, Dimension.TIME, "3.1 ms (3 to 500)"),
        (0.0, -0.004, 0.004, Dimension.DIFFERENCE, "0 pp (-0.4 to 0.4)"),
        (0.003, 0.001, math.inf, Dimension.TIME, "3 ms (1 to unbounded)"),
        (0.003, -math.inf, 0.004, Dimension.TIME, "3 ms (unbounded to 4)"),
        (34_200, 34_200, 34_200, Dimension.SIZE, "34.2 kB"),
        (0.003, -math.inf, math.inf, Dimension.TIME, "3 ms"),
    ],
)
def test_bounds_are_shown_in_the_values_unit(
    value: float, low: float, high: float, dimension: Dimension, shown: str
) -> None:
    assert with_interval(value, low, high, dimension) == shown


@given(st.floats(), st.floats(), st.floats(), st.sampled_from(Dimension))
def test_whatever_was_measured_can_be_shown(value: float, low: float, high: float, dimension: Dimension) -> None:
    assert with_interval(value, low, high, dimension).startswith(quantity(value, dimension))


@given(st.floats(1e-12, 1e15) | st.floats(-1e15, -1e-12), st.sampled_from(SCALED))
def test_what_is_shown_is_the_value_to_three_digits(value: float, dimension: Dimension) -> None:
    number, _, unit = quantity(value, dimension).partition(" ")
    assert float(number.replace(",", "")) * UNITS[dimension][unit] == pytest.approx(value, rel=0.0051)


@given(st.integers(-(10**15), 10**15))
def test_a_count_is_shown_to_the_last_one(count: int) -> None:
    assert int(quantity(count, Dimension.COUNT).replace(",", "")) == count


@pytest.mark.parametrize("dimension", Dimension)
def test_nan_and_infinity_are_said_in_words(dimension: Dimension) -> None:
    assert quantity(math.nan, dimension).startswith("not a number")
    assert quantity(math.inf, dimension).startswith("unbounded")


@pytest.mark.parametrize("dimension", Dimension)
def test_the_unit_of_the_evidence_is_the_languages_own_base(dimension: Dimension) -> None:
    unit = BASE_UNITS[dimension]
    assert UNITS[dimension].get(unit, 1.0) == 1.0
    assert bool(unit) is (dimension in {Dimension.TIME, Dimension.SIZE, Dimension.RATE, Dimension.MULTIPLE})


@pytest.mark.parametrize(
    ("value", "dimension"),
    [
        (999.9, Dimension.SIZE),
        (999_999, Dimension.SIZE),
        (0.000_999_9, Dimension.TIME),
        (999.6, Dimension.RATE),
        (9.996, Dimension.PROPORTION),
    ],
)
def test_a_quantity_a_little_under_a_thousand_has_no_exponent(value: float, dimension: Dimension) -> None:
    assert "e" not in quantity(value, dimension)


def test_nan_has_no_interval() -> None:
    assert with_interval(math.nan, math.nan, math.nan, Dimension.NUMBER) == "not a number"
