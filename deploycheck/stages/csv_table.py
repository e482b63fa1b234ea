"""CSV files as rows of cells, as they are written: no row is a comment, and no cell is guessed."""

from __future__ import annotations

import codecs
import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path

from deploycheck.errors import DeploycheckError
from deploycheck.lazy import np

MISSING = frozenset({"", "na", "n/a", "#n/a", "<na>", "nan", "null", "none"})
"""Cells that are missing values, in any case, with or without spaces around them."""


@dataclass(frozen=True)
class CsvTable:
    """The columns' ``names``, and the cells of each row; ``lines`` says on which line of the file a row begins."""

    path: Path
    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]

    def place(self, row: int) -> str:
        """Return where a row is, for messages."""
        return f"{self.path}:{self.lines[row]}"

    def numbers(self, name: str) -> np.ndarray:
        """Return a column as float64, ``[n]``, NaN where a value is missing; refuse a cell that is not a number."""
        at = self.names.index(name)
        found = [_number(row[at]) for row in self.rows]
        for row, value in enumerate(found):
            if value is None:
                raise self._not_a_number(row, at)
        return np.array(found, dtype=np.float64)

    def texts(self, name: str) -> np.ndarray:
        """Return a column as text, ``[n]``."""
        at = self.names.index(name)
        return np.array([row[at] for row in self.rows], dtype=np.str_)

    def _not_a_number(self, row: int, at: int) -> DeploycheckError:
        cell = self.rows[row][at]
        what = f"column {self.names[at]!r} holds {cell[:80]!r}, which is neither a number nor a missing value"
        hint = "turn text into numbers in a loader of your own; columns to slice by are named under `columns`"
        if any(digit in cell for digit in "0123456789"):
            hint = "write numbers as 1234.5 or 1.2e3: with a decimal point, without separators or units"
        return DeploycheckError(what, where=self.place(row), hint=hint)


def read_csv(path: Path, delimiter: str) -> CsvTable:
    """Read a CSV file with a header line (RFC 4180, UTF-8); lines that are blank are no rows.

    Raises ``DeploycheckError`` at the line that can't be read.
    """
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise DeploycheckError(f"the delimiter is {delimiter!r}, expected one character", where=str(path))
    content = path.read_bytes()
    reader = csv.reader(io.StringIO(_decode(content, path), newline=""), delimiter=delimiter, strict=True)
    found: list[tuple[str, ...]] = []
    lines: list[int] = []
    begins = 1
    try:
        for cells in reader:
            if len(cells) > 1 or any(cell.strip() for cell in cells):
                found.append(tuple(cells))
                lines.append(begins)
            begins = reader.line_num + 1
    except csv.Error as error:
        raise DeploycheckError(f"can't be read as CSV: {error}", where=f"{path}:{begins}") from error
    if not found:
        raise DeploycheckError("is empty: expected a header line, then rows", where=str(path))
    (header, *rows), (line, *others) = found, lines
    names = tuple(name.strip() for name in header)
    if "" in names:
        what = f"column {names.index('') + 1} of {len(names)} has no name"
        raise DeploycheckError(what, where=f"{path}:{line}", hint="name each column in the header line")
    for cells_of_row, at in zip(rows, others, strict=True):
        if len(cells_of_row) != len(names):
            what = f"this row has {len(cells_of_row)} cells, and the header names {len(names)} columns"
            raise DeploycheckError(what, where=f"{path}:{at}", hint="quote cells that contain the delimiter")
    return CsvTable(path, names, tuple(rows), tuple(others))


def _decode(content: bytes, path: Path) -> str:
    """Return the text of a file, without a byte-order mark."""
    content = content.removeprefix(codecs.BOM_UTF8)
    at = content.find(b"\0")
    what = "has a NUL character"
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        at, what, text = error.start, "is not UTF-8", ""
    if at >= 0:
        line = content.count(b"\n", 0, at) + 1
        raise DeploycheckError(f"this line {what}", where=f"{path}:{line}", hint="save the file as UTF-8 text")
    return text


def _number(cell: str) -> float | None:
    """Return a cell's number, NaN for a missing value; None for anything else.

    ``float`` reads more than files mean by a number: ``1_000``, digits of other scripts, and 1e999 as infinite.
    """
    try:
        value = float(cell)
    except ValueError:
        return math.nan if cell.strip().casefold() in MISSING else None
    is_written_so = cell.isascii() and "_" not in cell and (not math.isinf(value) or "inf" in cell.lower())
    return value if is_written_so else None
