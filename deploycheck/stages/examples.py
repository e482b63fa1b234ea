"""Labelled examples, and splitting them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deploycheck.errors import DeploycheckError
from deploycheck.language.spec import LABEL
from deploycheck.stages.tasks import Task
from deploycheck.store.arrays import write_arrays

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Examples:
    """Examples in order: ``inputs`` maps a name to an array ``[n, ...]``, ``labels`` is ``[n]``.

    ``columns`` are further facts about each example, ``[n]`` of text, by which they can be sliced. A model doesn't get
    them.
    """

    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray | slice) -> Examples:
        """Return the examples at ``rows``, in that order."""
        inputs = {name: array[rows] for name, array in self.inputs.items()}
        return Examples(inputs, self.labels[rows], {name: column[rows] for name, column in self.columns.items()})

    def column(self, by: str) -> np.ndarray:
        """Return what examples are sliced by, ``[n]``: their ``label``, or their value in the column ``by``."""
        if by != LABEL and by not in self.columns:
            known = ", ".join([LABEL, *self.columns])
            hint = "have the loader return columns: (inputs, labels, {NAME: values})"
            raise DeploycheckError(f"there is no column {by!r} to slice by; there are: {known}", hint=hint)
        return self.labels if by == LABEL else self.columns[by]


def as_examples(loaded: Any, names: tuple[str, ...], task: Task) -> Examples:
    """Return what a loader returned as examples, with the inputs that the model declares and the task's labels.

    A loader returns ``(inputs, labels)``, or with columns to slice by ``(inputs, labels, columns)``.
    ``inputs`` is one array where the model has one input, or a mapping from name to array.
    """
    match loaded:
        case (inputs, labels):
            columns: Mapping[str, Any] = {}
        case (inputs, labels, Mapping() as columns):
            pass
        case _:
            raise DeploycheckError(
                f"the loader returned {type(loaded).__name__}, expected (inputs, labels) or (inputs, labels, columns)"
            )
    if not isinstance(inputs, Mapping):
        if len(names) != 1:
            raise DeploycheckError(
                f"the loader returned one array of inputs, the model has {len(names)}: {', '.join(names)}",
                hint="return a mapping from input name to array",
            )
        inputs = {names[0]: inputs}
    if set(inputs) != set(names):
        raise DeploycheckError(f"the loader gives the inputs {sorted(inputs)}, the model declares {sorted(names)}")
    arrays = {name: _plain(name, inputs[name]) for name in names}
    labels = task.labels(_plain("labels", labels))
    texts = {name: _column(name, np.asarray(column)) for name, column in columns.items()}
    counts = {name: len(array) for name, array in {**arrays, **texts}.items()} | {"labels": len(labels)}
    if len(set(counts.values())) != 1:
        raise DeploycheckError(f"the loader gives arrays of different lengths: {counts}")
    if not len(labels):
        raise DeploycheckError("the loader gives no examples")
    return Examples(arrays, labels, texts)


def _plain(name: str, given: Any) -> np.ndarray:
    """Return an array in this machine's byte order; refuse a masked one, whose values would be taken for real."""
    if isinstance(given, np.ma.MaskedArray) and given.mask.any():
        what = f"the loader gives {name!r} as a masked array"
        raise DeploycheckError(what, hint="fill it: NaN is a missing value of an input")
    array = np.asarray(given)
    if not array.ndim:
        raise DeploycheckError(f"the loader gives {name!r} as a single {array.dtype}, expected an array of examples")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _column(name: str, column: np.ndarray) -> np.ndarray:
    if name == LABEL:
        what = f"a column can't be called {LABEL!r}: that name means the labels"
        raise DeploycheckError(what, hint="choose another name")
    if column.ndim != 1:
        raise DeploycheckError(f"the column {name!r} has the shape {column.shape}, expected [n]")
    return column.astype(str)


def split(examples: Examples, fractions: Mapping[str, float], *, seed: int, stratify: bool) -> dict[str, Examples]:
    """Split the examples into named parts by ``fractions`` (which sum to 1); the same seed gives the same parts.

    With ``stratify`` every class is split in these fractions, so that a class has the same share of each part as of the
    whole, to within one example per class. Labels that aren't classes are split within each tenth of
    their sorted values.
    """
    random = np.random.default_rng(seed)
    classes = _strata(examples.labels) if stratify else np.zeros(len(examples), dtype=np.int64)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in fractions}
    for label in np.unique(classes):
        rows = random.permutation(np.flatnonzero(classes == label))
        ends = np.rint(np.cumsum(list(fractions.values())) * len(rows)).astype(int)
        for name, start, end in zip(fractions, [0, *ends[:-1]], ends, strict=True):
            parts[name].append(rows[start:end])
    return {name: examples.take(np.sort(np.concatenate(rows))) for name, rows in parts.items()}


def _strata(labels: np.ndarray) -> np.ndarray:
    if np.issubdtype(labels.dtype, np.integer):
        return labels
    tenths: np.ndarray = np.digitize(labels, np.quantile(labels, np.linspace(0.1, 0.9, 9)))
    return tenths


def save(examples: Examples, file: Path) -> None:
    """Write the examples as safetensors: ``inputs/NAME``, ``labels``, ``columns/NAME`` (UTF-32, ``[n, width]``)."""
    arrays = {f"inputs/{name}": array for name, array in examples.inputs.items()}
    columns = {
        f"columns/{name}": np.ascontiguousarray(column).view(np.uint32).reshape(len(column), -1)
        for name, column in examples.columns.items()
    }
    write_arrays({**arrays, **columns, "labels": examples.labels}, file)


def read(file: Path) -> Examples:
    """Read what ``save`` wrote."""
    from safetensors.numpy import load_file

    arrays = load_file(file)
    labels = arrays.pop("labels")
    parts: dict[str, dict[str, np.ndarray]] = {"inputs": {}, "columns": {}}
    for name, array in arrays.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = array if part == "inputs" else array.view(f"<U{array.shape[1]}")[:, 0]
    return Examples(parts["inputs"], labels, parts["columns"])
