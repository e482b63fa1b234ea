"""Parquet files as columns: what is a number is decided by a column's type, never guessed from its values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploycheck.errors import DeploycheckError
from deploycheck.lazy import np


@dataclass(frozen=True)
class ParquetTable:
    """A table of pyarrow, whose dictionaries are decoded."""

    path: Path
    table: Any

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self.table.column_names)

    def place(self, row: int) -> str:
        """Return where a row is, for messages."""
        return f"{self.path}, row {row + 1}"

    def numbers(self, name: str) -> np.ndarray:
        """Return a column of numbers or booleans, ``[n]``; as float64 with NaN where a value is missing.

        Decimals become the nearest float64. Raises ``DeploycheckError`` for any other type.
        """
        import pyarrow as pa

        column = self._column(name)
        kind = column.type
        plain = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
        if not (plain or pa.types.is_decimal(kind) or pa.types.is_null(kind)):
            what = f"column {name!r} is of type {kind}: only numbers and booleans can be inputs or labels"
            hint = "turn it into numbers in a loader of your own, or name it under `columns` to slice by it"
            raise DeploycheckError(what, where=str(self.path), hint=hint)
        with self._converting(name, column, "numbers"):
            if column.null_count or not plain:
                column = column.cast(pa.float64(), safe=False)
            found: np.ndarray = column.to_numpy()
        return found

    def texts(self, name: str) -> np.ndarray:
        """Return a column as text, ``[n]``; a missing value is empty. Raises ``DeploycheckError`` for what is none."""
        import pyarrow as pa

        column = self._column(name)
        if pa.types.is_nested(column.type):
            what = f"column {name!r} is of type {column.type}, by which nothing can be sliced"
            raise DeploycheckError(what, where=str(self.path), hint="leave it out of `columns`")
        with self._converting(name, column, "text"):
            if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
                column = column.cast(pa.large_string())
            there = column.drop_null().to_numpy().astype(str)
        texts = np.full(len(column), "", dtype=there.dtype)
        texts[column.is_valid().to_numpy()] = there
        return texts

    @contextmanager
    def _converting(self, name: str, column: Any, into: str) -> Iterator[None]:
        """Raise ``DeploycheckError`` at the column where it can't be converted within the block."""
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, UnicodeError) as error:
            what = f"column {name!r} of type {column.type} can't be read as {into}: {error}"
            hint = "convert it in a loader of your own, or leave it out"
            raise DeploycheckError(what, where=str(self.path), hint=hint) from error

    def _column(self, name: str) -> Any:
        import pyarrow as pa

        column = self.table[name]
        if pa.types.is_dictionary(column.type):
            column = pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], column.type.value_type)
        return column


def read_parquet(path: Path) -> ParquetTable:
    """Read a Parquet file. Raises ``DeploycheckError`` without pyarrow, and what pyarrow raises for a damaged file."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise DeploycheckError(
            "the parquet loader needs pyarrow", where=str(path), hint="pip install 'deploycheck[parquet]'"
        ) from error
    with path.open("rb") as file:  # opened by Python, so that it is recorded
        return ParquetTable(path, parquet.ParquetFile(file).read())
