"""The built-in data loaders: each returns ``(inputs, labels, columns)`` from a file.

Their argument ``columns`` names the columns that are not inputs, by which the examples can be sliced.
"""

from __future__ import annotations

import csv as csv_reader
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploycheck.errors import DeploycheckError
from deploycheck.lazy import np

Columns = dict[str, "np.ndarray"]


@dataclass(frozen=True)
class Loader:
    """A data loader: its name in a spec, and a function that gives ``(inputs, labels)`` or those and columns.

    ``inputs`` is one array ``[n, ...]`` or a dict of them by input name, ``labels`` is ``[n]``, ``columns`` a dict
    of ``[n]`` by which examples can be sliced.
    """

    name: str
    load: Callable[..., Any]


def npz(path: Path, *, labels: str = "labels", columns: Sequence[str] = ()) -> tuple[Any, np.ndarray, Columns]:
    """Read a NumPy archive: the array ``labels`` has the labels, every other array is an input of its name."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise DeploycheckError(f"can't be read as an npz archive: {error}", where=str(path)) from error
    facts = _picked(arrays, columns, path)
    return *_apart(_without(arrays, columns), labels, path), facts


def csv(
    path: Path, *, labels: str, delimiter: str = ",", input: str = "", columns: Sequence[str] = ()
) -> tuple[Any, np.ndarray, Columns]:
    """Read numbers under a header line: the column ``labels``, and every other column as a feature, in file order.

    Labels that are all whole become integers, because class numbers are integers. An empty cell is a missing value
    (NaN). Each column is an input of its name, or, where ``input`` is given, all features are one float32 array
    ``[n, features]`` of that name.
    """
    try:
        if not path.stat().st_size:
            raise DeploycheckError("is empty: expected a header line, then numbers", where=str(path))
        table: Any = np.genfromtxt(path, delimiter=delimiter, names=True, dtype=np.float64, encoding="utf-8")
    except (OSError, ValueError, IndexError) as error:
        raise DeploycheckError(f"can't be read as CSV: {error}", where=str(path)) from error
    table = np.atleast_1d(table)
    header, texts = _texts(path, delimiter)
    facts = _picked(dict(zip(header, texts, strict=True)), columns, path)
    numbers = {  # by position, because NumPy changes names
        name: table[name]
        for name, written in zip(table.dtype.names or (), header, strict=False)
        if written not in facts
    }
    return *_tabular(numbers, labels, input, path), facts


def parquet(
    path: Path, *, labels: str, input: str = "", columns: Sequence[str] = ()
) -> tuple[Any, np.ndarray, Columns]:
    """Read a Parquet table of numbers, as ``csv`` does; needs ``deploycheck[parquet]``."""
    try:
        from pyarrow import ArrowException
        from pyarrow import parquet as reader
    except ImportError as error:
        raise DeploycheckError(
            "the parquet loader needs pyarrow", where=str(path), hint="pip install 'deploycheck[parquet]'"
        ) from error
    try:
        table = reader.read_table(path)
    except (OSError, ArrowException) as error:
        raise DeploycheckError(f"can't be read as Parquet: {error}", where=str(path)) from error
    arrays = {name: table[name].to_numpy() for name in table.column_names}
    facts = _picked(arrays, columns, path)
    return *_tabular(_without(arrays, columns), labels, input, path), facts


def _picked(arrays: Columns, columns: Sequence[str], path: Path) -> Columns:
    missing = [name for name in columns if name not in arrays]
    if missing:
        known = ", ".join(arrays)
        raise DeploycheckError(f"no column or array {missing[0]!r} to slice by; there are: {known}", where=str(path))
    return {name: arrays[name] for name in columns}


def _without(arrays: Columns, columns: Sequence[str]) -> Columns:
    return {name: array for name, array in arrays.items() if name not in columns}


def _texts(path: Path, delimiter: str) -> tuple[list[str], list[np.ndarray]]:
    """Return the names and the columns of a CSV file as text."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = [row for row in csv_reader.reader(file, delimiter=delimiter) if row]
    return [name.strip() for name in header], [np.array([row[at] for row in rows]) for at in range(len(header))]


def _apart(columns: dict[str, np.ndarray], labels: str, path: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    if labels not in columns:
        raise DeploycheckError(
            f"no column or array {labels!r} for the labels; there are: {', '.join(columns) or 'none'}",
            where=str(path),
            hint="name it with `with: {labels: NAME}`",
        )
    return {name: array for name, array in columns.items() if name != labels}, columns[labels]


def _tabular(columns: dict[str, np.ndarray], labels: str, name: str, path: Path) -> tuple[Any, np.ndarray]:
    features, targets = _apart(columns, labels, path)
    whole = bool(np.all(np.isfinite(targets)) and np.all(targets == np.rint(targets)))
    floats = {column: np.asarray(values, dtype=np.float32) for column, values in features.items()}
    inputs = {name: np.stack(list(floats.values()), axis=1)} if name else floats
    return inputs, targets.astype(np.int64 if whole else np.float64)


NPZ, CSV, PARQUET = Loader("npz", npz), Loader("csv", csv), Loader("parquet", parquet)
