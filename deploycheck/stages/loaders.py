"""The built-in data loaders: each returns ``(inputs, labels, columns)`` from a file.

Their argument ``columns`` names the columns that are not inputs, by which the examples can be sliced.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from deploycheck.errors import DeploycheckError, located
from deploycheck.lazy import np
from deploycheck.stages.csv_table import read_csv
from deploycheck.stages.parquet_table import read_parquet

Columns = dict[str, "np.ndarray"]
NARROWER = {"float64": "float32", "int64": "int32", "uint64": "uint32"}
"""NumPy's default types, which no input of a model can have, and what they become."""


@dataclass(frozen=True)
class Loader:
    """A data loader: its name in a spec, and a function that gives ``(inputs, labels)`` or those and columns.

    ``inputs`` is one array ``[n, ...]`` or a dict of them by input name, ``labels`` is ``[n]``, ``columns`` a dict
    of ``[n]`` by which examples can be sliced.
    """

    name: str
    load: Callable[..., Any]


def npz(path: Path, *, labels: str = "labels", columns: Sequence[str] = ()) -> tuple[Any, np.ndarray, Columns]:
    """Read a NumPy archive: the array ``labels`` has the labels, every other array is an input of its name.

    Inputs of 64 bits become such of 32 bits.
    """
    with _reading(path, "an npz archive"):
        arrays = _read_archive(path)
    with located(str(path)):
        _check_names(list(arrays), labels, columns)
        inputs = {
            name: _narrow(name, array) for name, array in arrays.items() if name != labels and name not in columns
        }
        targets = _whole_as_integers(arrays[labels], lambda row: f"{path}, row {row + 1}")
        return inputs, targets, {name: arrays[name] for name in columns}


def csv(
    path: Path, *, labels: str, delimiter: str = ",", input: str = "", columns: Sequence[str] = ()
) -> tuple[Any, np.ndarray, Columns]:
    """Read numbers under a header line: the column ``labels``, and every other column as a feature, in file order.

    Labels that are all whole become integers, because class numbers are integers. An empty cell is a missing value
    (NaN), and so are those that ``csv_table.MISSING`` lists. Each column is an input of its name, or, where ``input``
    is given, all features are one float32 array ``[n, features]`` of that name.
    """
    with _reading(path, "CSV"):
        table = read_csv(path, delimiter)
    return _examples(table, labels, input, columns)


def parquet(
    path: Path, *, labels: str, input: str = "", columns: Sequence[str] = ()
) -> tuple[Any, np.ndarray, Columns]:
    """Read a Parquet table of numbers, as ``csv`` does; needs ``deploycheck[parquet]``."""
    with _reading(path, "Parquet"):
        table = read_parquet(path)
    return _examples(table, labels, input, columns)


class Table(Protocol):
    """A table that was read from a file; rows are counted from 0."""

    @property
    def path(self) -> Path:
        """The file."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its columns, in file order."""
        ...

    def numbers(self, name: str) -> np.ndarray:
        """Return a column as numbers, ``[n]``, NaN where one is missing; raise ``DeploycheckError`` for others."""
        ...

    def texts(self, name: str) -> np.ndarray:
        """Return a column as text, ``[n]``."""
        ...

    def place(self, row: int) -> str:
        """Return where a row is, for messages."""
        ...


@contextmanager
def _reading(path: Path, form: str) -> Iterator[None]:
    """Turn whatever is raised of a file that can't be read into an error at its path."""
    try:
        if not path.is_file():
            raise DeploycheckError(
                f"can't be read as {form}: {'it is not a file' if path.exists() else 'there is no such file'}"
            )
        yield
    except DeploycheckError as error:
        error.where = error.where or str(path)
        raise
    except Exception as error:  # of a damaged file the parsers raise anything
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise DeploycheckError(f"can't be read as {form}: {first}", where=str(path)) from error


def _read_archive(path: Path) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(path):
        what = "can't be read as an npz archive: it is not a zip file, or it was cut off"
        raise DeploycheckError(what, hint="write it with np.savez(path, NAME=array)")
    arrays: dict[str, np.ndarray] = {}
    with np.load(path, allow_pickle=False) as archive:
        _check_unique(archive.files, "arrays")
        for name in archive.files:
            try:
                arrays[name] = archive[name]
            except ValueError as error:  # of Python objects, which could run code
                raise DeploycheckError(f"its array {name!r} can't be read: {error}") from error
            if not isinstance(arrays[name], np.ndarray) or not arrays[name].ndim:
                what = f"its part {name!r} is not an array of examples"
                raise DeploycheckError(what, hint="write it with np.savez(path, NAME=array)")
    return arrays


def _narrow(name: str, array: np.ndarray) -> np.ndarray:
    """Return an input with 32 bits for 64."""
    if array.dtype.kind not in "biuf":
        what = f"the array {name!r} is {array.dtype}: only numbers and booleans can be inputs"
        raise DeploycheckError(what, hint="name it under `columns` to slice by it, or write a loader of your own")
    narrower = NARROWER.get(array.dtype.name)
    if narrower is None:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        narrowed: np.ndarray = array.astype(narrower)
    lost = np.isfinite(array) & ~np.isfinite(narrowed) if array.dtype.kind == "f" else narrowed != array
    if lost.any():
        raise DeploycheckError(f"the array {name!r} holds {array[lost][0]}, which is too large for {narrower}")
    return narrowed


def _examples(table: Table, labels: str, name: str, columns: Sequence[str]) -> tuple[Any, np.ndarray, Columns]:
    """Return a table's features as inputs, its labels, and its columns to slice by."""
    with located(str(table.path)):
        _check_names(table.names, labels, columns)
        targets = _whole_as_integers(table.numbers(labels), table.place)
        if not len(targets):
            raise DeploycheckError("has no rows")
        features = {
            column: _as_float32(column, table.numbers(column), table.place)
            for column in table.names
            if column != labels and column not in columns
        }
        inputs = {name: np.stack(list(features.values()), axis=1)} if name else features
        return inputs, targets, {column: table.texts(column) for column in columns}


def _check_names(names: Sequence[str], labels: str, columns: Sequence[str]) -> None:
    """Check that a file has the labels, the columns to slice by, and something else, which is the input."""
    _check_unique(names, "columns")
    known = ", ".join(names) or "none"
    for name in columns:
        if name not in names:
            raise DeploycheckError(f"no column or array {name!r} to slice by; there are: {known}")
    if labels not in names:
        what = f"no column or array {labels!r} for the labels; there are: {known}"
        raise DeploycheckError(what, hint="name it with `with: {labels: NAME}`")
    if labels in columns:
        what = f"{labels!r} is the labels, so it can't be one of `columns` too"
        raise DeploycheckError(what, hint="to slice by the labels, write `slices: {by: label}`")
    if not set(names) - {labels, *columns}:
        raise DeploycheckError(f"has no features: {known} are the labels and what is under `columns`")


def _check_unique(names: Iterable[str], what: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DeploycheckError(f"two {what} are called {twice[0]!r}", hint="rename or remove one")


def _as_float32(name: str, values: np.ndarray, place: Callable[[int], str]) -> np.ndarray:
    with np.errstate(over="ignore"):
        floats: np.ndarray = values.astype(np.float32)
    lost = np.flatnonzero(np.isfinite(values) & ~np.isfinite(floats))
    if len(lost):
        what = f"column {name!r} holds {values[lost[0]]:g}, which is too large for float32"
        raise DeploycheckError(what, where=place(int(lost[0])))
    return floats


def _whole_as_integers(labels: np.ndarray, place: Callable[[int], str]) -> np.ndarray:
    """Return booleans, and numbers that are all whole, as integers; refuse a label that is missing."""
    if labels.dtype.kind != "f":
        return labels.astype(np.int64) if labels.dtype.kind == "b" else labels
    missing = np.flatnonzero(np.isnan(labels))
    if len(missing):
        at = np.unravel_index(missing[0], labels.shape)[0]
        hint = "leave out the examples that have none"
        raise DeploycheckError("this example has no label", where=place(int(at)), hint=hint)
    exact = bool(np.all(np.abs(labels) < 2**53) and np.all(labels == np.rint(labels)))
    return labels.astype(np.int64 if exact else np.float64)


NPZ, CSV, PARQUET = Loader("npz", npz), Loader("csv", csv), Loader("parquet", parquet)
