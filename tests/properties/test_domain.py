"""Drawn inputs are of the model's shapes and dtypes, and in the ranges that the data have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploycheck.properties.domain import (
    HIGHEST,
    LOWEST,
    Batch,
    Change,
    Domain,
    Random,
    Row,
    batches_of,
    cast_like,
    make_domain,
    rows,
)

AGES = np.array([[20, 30], [40, 50], [60, 30]], np.int32)
FLOATS = np.array([[0.5, np.nan, 7], [1.5, 2, 7], [-1, np.inf, 7]], np.float32)
FLAGS = np.array([True, False, True])
MIXED = make_domain({"age": AGES, "x": FLOATS, "flag": FLAGS}, [{"age": AGES + 5, "x": FLOATS, "flag": FLAGS}], 4)


@settings(max_examples=50)
@given(rows(MIXED))
def test_a_row_is_what_the_model_takes(row: Row) -> None:
    values = row.values(MIXED)
    assert [(name, array.dtype, array.shape) for name, array in values.items()] == [
        ("age", np.int32, (2,)),
        ("x", np.float32, (3,)),
        ("flag", np.bool_, ()),
    ]
    assert (values["age"] >= [20, 30]).all()
    assert (values["age"] <= [65, 55]).all()
    x = values["x"]
    assert not np.isnan(x[[0, 2]]).any()
    assert np.isinf(x[1]) <= (row.base == 2)
    assert -1 <= x[0] <= 1.5
    assert x[2] == 7


NAMED = (
    Row(0),
    Row(1),
    Row(HIGHEST),
    Row(LOWEST),
    Row(Random(0)),
    Row(Random(1)),
    Row(0, (Change("age", 0, 1.0),)),
    Row(0, (Change("age", 1, 1.0),)),
    Row(0, (Change("age", 1, 0.5),)),
    Row(0, (Change("x", 1, 1.0),)),
    Row(0, (Change("x", 1, None),)),
    Row(0, (Change("x", 1, None), Change("age", 1, 1.0))),
)


@given(st.sampled_from(NAMED) | rows(MIXED), st.sampled_from(NAMED) | rows(MIXED))
def test_a_row_has_a_name_that_says_all_of_it(one: Row, other: Row) -> None:
    assert (repr(one) == repr(other)) == (one == other)


@settings(max_examples=20)
@given(batches_of(MIXED, 2, 4))
def test_a_batch_has_its_rows_along_the_first_axis(batch: Batch) -> None:
    assert {len(array) for array in batch.inputs.values()} == {len(batch.rows)}
    assert 2 <= len(batch.rows) <= 4


def test_a_feature_that_is_missing_in_the_data_may_be_missing() -> None:
    assert np.isnan(Row(1, (Change("x", 1, None),)).values(MIXED)["x"][1])


def test_a_change_of_an_input_that_is_one_number_is_made() -> None:
    assert Row(0, (Change("flag", 0, 0.0),)).values(MIXED)["flag"] == np.False_
    assert Row(1, (Change("flag", 0, 1.0),)).values(MIXED)["flag"] == np.True_


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (Row(1), "test example 1 (age = [40, 50]; x = [1.5, 2. , 7. ]; flag = False)"),
        (Row(0, (Change("age", 1, 1.0),)), "test example 0 with age[1] = 55 (age = [20, 55]"),
        (Row(HIGHEST), "the highest value of each feature (age = [65, 55]"),
    ],
)
def test_a_row_is_shown_with_its_values(row: Row, says: str) -> None:
    assert row.describe(MIXED).startswith(says)


def test_a_value_outside_of_a_dtype_becomes_the_nearest_of_it() -> None:
    values = np.array([-3, 2.6, 300])
    assert cast_like(values, np.zeros(3, np.uint8)).tolist() == [0, 3, 255]
    assert cast_like(values, np.zeros(3, np.int8)).tolist() == [-3, 3, 127]
    assert cast_like(values, np.zeros(3, np.float16)).tolist() == pytest.approx([-3, 2.6, 300], rel=1e-3)
    assert cast_like(values, np.zeros(3, bool)).tolist() == [False, True, True]


def test_of_a_large_row_only_the_changes_are_shown() -> None:
    wide = Domain(make_domain({"image": np.zeros((2, 8, 8), np.float32)}, [], 4).inputs)
    assert Row(Random(3), (Change("image", 9, 0.5),)).describe(wide) == "random values (seed 3) with image[1, 1] = 0"
