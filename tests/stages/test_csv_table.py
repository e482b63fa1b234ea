"""CSV files: nothing is lost, and nothing is guessed."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from deploycheck.errors import DeploycheckError
from deploycheck.stages.csv_table import CsvTable, read_csv


def read(folder: Path, content: str | bytes, delimiter: str = ",") -> CsvTable:
    (folder / "d.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    return read_csv(folder / "d.csv", delimiter)


CELLS = st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]), max_size=5)


@example([["", "\n"]], ",", "\r", csv.QUOTE_ALL)
@given(
    st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=8),
    st.sampled_from(",;\t|"),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_every_row_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], delimiter: str, end: str, quoting: int
) -> None:
    # With this end of lines Python's writer doesn't quote a line feed, so it would end a line too.
    assume(quoting == csv.QUOTE_ALL or end != "\r" or not any("\n" in cell for row in rows for cell in row))
    file = tmp_path_factory.mktemp("csv") / "d.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows([["#a", "b.c (d)"], *rows])
    table = read_csv(file, delimiter)
    assert table.names == ("#a", "b.c (d)")
    assert [list(row) for row in table.rows] == rows


@given(st.lists(st.floats(allow_nan=False), min_size=1))
def test_numbers_are_read_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, numbers: list[float]) -> None:
    folder = tmp_path_factory.mktemp("csv")
    table = read(folder, "x,y\n" + "".join(f'{number!r},"{number!r}"\n' for number in numbers))
    assert table.numbers("x").tolist() == table.numbers("y").tolist() == numbers


@pytest.mark.parametrize("cell", ["", " ", "NA", "n/a", "#N/A", "NaN", "nan", "NULL", "None", "<NA>", '""', " NA "])
def test_a_missing_value_is_nan(cell: str, tmp_path: Path) -> None:
    assert math.isnan(read(tmp_path, f"x,y\n{cell},1\n").numbers("x")[0])


@pytest.mark.parametrize(
    "cell",
    [
        "high",
        "#1.5",
        '"1,234"',
        "1.5 kg",
        "5 %",
        "1_000",
        "0x10",
        "2024-01-01",
        "True",
        "?",
        "-",
        "1.5.2",
        "١٢",
        "1e999",
    ],
)
def test_a_cell_that_is_no_number_is_refused_at_its_line(cell: str, tmp_path: Path) -> None:
    table = read(tmp_path, f"x,y\n1,2\n\n{cell},3\n")
    with pytest.raises(DeploycheckError, match="is neither a number nor a missing value") as caught:
        table.numbers("x")
    assert caught.value.what.startswith(f"column 'x' holds {cell.strip(chr(34))!r}, ")
    assert caught.value.where == f"{tmp_path}/d.csv:4"


def test_a_decimal_comma_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeploycheckError, match="'1,5'") as caught:
        read(tmp_path, "x;y\n1,5;2\n", ";").numbers("x")
    assert caught.value.hint.startswith("write numbers as 1234.5")


def test_a_byte_order_mark_is_not_part_of_a_name(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbfy,x\r\n1,2\r\n").names == ("y", "x")


def test_text_is_kept_as_it_is_written(tmp_path: Path) -> None:
    texts = read(tmp_path, 'x,note\n1,#1 "in" row\n2,"a\nb, c"\n3,\n').texts("note")
    assert texts.tolist() == ['#1 "in" row', "a\nb, c", ""]


def test_a_row_is_at_the_line_where_it_begins(tmp_path: Path) -> None:
    table = read(tmp_path, '\nx,note\n\n1,"a\nb"\n2,c\n')
    assert [table.place(row).rpartition(":")[2] for row in range(2)] == ["4", "6"]


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        ("a,b\n1,2\n1\n", 3, "this row has 1 cells, and the header names 2 columns"),
        ("a,b\n1,2\n\n1,2,3\n", 4, "this row has 3 cells, and the header names 2 columns"),
        ("a,,b\n1,2,3\n", 1, "column 2 of 3 has no name"),
        ('a,b\n1,2\n"1,2\n', 3, "can't be read as CSV: unexpected end of data"),
        ('a,b\n"1"2,3\n', 2, "can't be read as CSV: ',' expected after '\"'"),
        ("a,b\n1,\0\n", 2, "this line has a NUL character"),
        (b"a,b\n1,\xff\n", 2, "this line is not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), 1, "this line is not UTF-8"),
    ],
)
def test_what_can_not_be_read_is_an_error_at_its_line(
    content: str | bytes, line: int, what: str, tmp_path: Path
) -> None:
    with pytest.raises(DeploycheckError) as caught:
        read(tmp_path, content)
    assert caught.value.what == what
    assert caught.value.where == f"{tmp_path}/d.csv:{line}"


@pytest.mark.parametrize("content", ["", "\n\n", " \n", "\ufeff"])
def test_a_file_without_a_header_is_empty(content: str, tmp_path: Path) -> None:
    with pytest.raises(DeploycheckError, match="is empty: expected a header line, then rows"):
        read(tmp_path, content)


@pytest.mark.parametrize("delimiter", ["", ", ", '"', "\n"])
def test_a_delimiter_is_one_character(delimiter: str, tmp_path: Path) -> None:
    with pytest.raises(DeploycheckError, match="expected one character"):
        read(tmp_path, "a,b\n1,2\n", delimiter)


def test_a_table_of_a_header_alone_has_no_numbers(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, "a,b\n").numbers("a"), [])
