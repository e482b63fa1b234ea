"""Parquet files: a column's type decides whether it holds numbers."""

from __future__ import annotations

import decimal
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from deploycheck.errors import DeploycheckError
from deploycheck.stages.parquet_table import ParquetTable, read_parquet


def read(folder: Path, values: Any, kind: pa.DataType | None = None) -> ParquetTable:
    column = values if isinstance(values, pa.Array) else pa.array(values, kind)
    parquet.write_table(pa.table({"x": column}), folder / "d.parquet")
    return read_parquet(folder / "d.parquet")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2], [1, 2]),
        ([1, None], [1, np.nan]),
        ([0.5, None, float("inf")], [0.5, np.nan, np.inf]),
        ([True, False], [1, 0]),
        ([True, None], [1, np.nan]),
        ([None, None], [np.nan, np.nan]),
        ([decimal.Decimal("1.25"), None], [1.25, np.nan]),
        (pa.array([3, 4, 3]).dictionary_encode(), [3, 4, 3]),
        ([2**53 + 1], [2**53 + 1]),
    ],
)
def test_numbers_and_booleans_are_numbers_and_null_is_missing(
    values: Any, expected: list[float], tmp_path: Path
) -> None:
    found = read(tmp_path, values).numbers("x")
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "values",
    [
        [datetime(2024, 1, 1), None],
        [timedelta(days=1)],
        [datetime(2024, 1, 1).date()],
        ["1", "2"],
        [b"1"],
        [[1.0], [2.0]],
        [{"a": 1}],
        pa.array(["low", "high"]).dictionary_encode(),
    ],
    ids=lambda values: str(values[0]),
)
def test_a_column_of_another_type_is_never_a_number(values: Any, tmp_path: Path) -> None:
    with pytest.raises(DeploycheckError, match=r"column 'x' is of type .*: only numbers and booleans can be") as caught:
        read(tmp_path, values).numbers("x")
    assert caught.value.where == str(tmp_path / "d.parquet")


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (["a", None, ""], ["a", "", ""]),
        ([1, None, 30], ["1", "", "30"]),
        ([b"a", b"b"], ["a", "b"]),
        (pa.array(["low", None]).dictionary_encode(), ["low", ""]),
        ([None, None], ["", ""]),
    ],
)
def test_a_column_to_slice_by_is_text_and_null_is_empty(values: Any, texts: list[str], tmp_path: Path) -> None:
    assert read(tmp_path, values).texts("x").tolist() == texts


def test_nothing_can_be_sliced_by_lists(tmp_path: Path) -> None:
    with pytest.raises(DeploycheckError, match="by which nothing can be sliced"):
        read(tmp_path, [[1], [2]]).texts("x")


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(1), pa.string()], ids=str)
def test_bytes_that_are_not_text_are_an_error_at_their_file(kind: pa.DataType, tmp_path: Path) -> None:
    bad = ParquetTable(
        tmp_path / "d.parquet", pa.table({"x": pa.array([b"a", b"\xff"]).view(pa.binary()).cast(kind, safe=False)})
    )
    with pytest.raises(DeploycheckError, match=r"column 'x' of type .* can't be read as text") as caught:
        bad.texts("x")
    assert caught.value.where == str(tmp_path / "d.parquet")


def test_the_names_of_folders_add_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "year=2024"
    folder.mkdir()
    assert read(folder, [1]).names == ("x",)
