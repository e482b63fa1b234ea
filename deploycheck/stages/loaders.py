"""The built-in data loaders: each gives ``(inputs, labels)`` from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from deploycheck.errors import DeploycheckError


def npz(path: Path, *, labels: str = "labels") -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Read a NumPy archive: the array named ``labels``, every other array an input of that name."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise DeploycheckError(f"can't be read as an npz archive: {error}", where=str(path)) from error
    return _apart(arrays, labels, path)


def csv(path: Path, *, labels: str, delimiter: str = ",", input: str = "") -> tuple[Any, np.ndarray]:
    """Read numbers under a header line: column ``labels``, every other column a feature, in file order.

    An empty cell is a missing value (NaN). Each column is an input of its name, or, where ``input`` is given,
    all features are one float32 array ``[n, features]`` of that name.
    """
    try:
        if not path.stat().st_size:
            raise DeploycheckError("is empty: expected a header line, then numbers", where=str(path))
        table: Any = np.genfromtxt(path, delimiter=delimiter, names=True, dtype=np.float64, encoding="utf-8")
    except (OSError, ValueError, IndexError) as error:
        raise DeploycheckError(f"can't be read as CSV: {error}", where=str(path)) from error
    table = np.atleast_1d(table)
    return _tabular({name: table[name] for name in table.dtype.names or ()}, labels, input, path)


def parquet(path: Path, *, labels: str, input: str = "") -> tuple[Any, np.ndarray]:
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
    columns = {name: table[name].to_numpy() for name in table.column_names}
    return _tabular(columns, labels, input, path)


def _apart(columns: dict[str, np.ndarray], labels: str, path: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    if labels not in columns:
        raise DeploycheckError(
            f"no column or array {labels!r} for the labels; there are: {', '.join(columns) or 'none'}",
            where=str(path),
            hint="name it with `with: {labels: NAME}`",
        )
    return {name: array for name, array in columns.items() if name != labels}, columns[labels]


def _tabular(columns: dict[str, np.ndarray], labels: str, name: str, path: Path) -> tuple[Any, np.ndarray]:
    features, classes = _apart(columns, labels, path)
    if not np.all(np.isfinite(classes)) or np.any(classes != np.rint(classes)):
        raise DeploycheckError(f"column {labels!r} holds values that are no class numbers", where=str(path))
    floats = {column: np.asarray(values, dtype=np.float32) for column, values in features.items()}
    inputs = {name: np.stack(list(floats.values()), axis=1)} if name else floats
    return inputs, classes.astype(np.int64)
