"""Labelled examples, and how they are split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploycheck.errors import DeploycheckError
from deploycheck.store.arrays import write_arrays

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Examples:
    """Examples in order: ``inputs`` maps a name to an array ``[n, ...]``, ``labels`` is ``[n]``."""

    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray | slice) -> Examples:
        """Return the examples at ``rows``, in that order."""
        return Examples({name: array[rows] for name, array in self.inputs.items()}, self.labels[rows])


def as_examples(loaded: Any, names: tuple[str, ...], where: str) -> Examples:
    """Check what a loader returned, ``(inputs, labels)``, against the input names the model declares.

    ``inputs`` is one array where the model has one input, or a mapping from name to array.
    """
    match loaded:
        case (inputs, labels):
            pass
        case _:
            raise DeploycheckError(
                f"the loader returned {type(loaded).__name__}, expected a pair (inputs, labels)", where=where
            )
    if not isinstance(inputs, Mapping):
        if len(names) != 1:
            raise DeploycheckError(
                f"the loader returned one array of inputs, the model has {len(names)}: {', '.join(names)}",
                where=where,
                hint="return a mapping from input name to array",
            )
        inputs = {names[0]: inputs}
    if set(inputs) != set(names):
        raise DeploycheckError(
            f"the loader gives the inputs {sorted(inputs)}, the model declares {sorted(names)}", where=where
        )
    arrays = {name: np.asarray(inputs[name]) for name in names}
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DeploycheckError(
            f"labels are {labels.dtype} of shape {labels.shape}, expected class numbers of shape [n]",
            where=where,
            hint="number the classes from 0, as integers",
        )
    if len(labels) and labels.min() < 0:
        raise DeploycheckError(f"labels hold {labels.min()}, expected class numbers from 0", where=where)
    counts = {name: len(array) for name, array in arrays.items()} | {"labels": len(labels)}
    if len(set(counts.values())) != 1:
        raise DeploycheckError(f"the loader gives arrays of different lengths: {counts}", where=where)
    if not len(labels):
        raise DeploycheckError("the loader gives no examples", where=where)
    return Examples(arrays, labels)


def split(examples: Examples, fractions: Mapping[str, float], *, seed: int, stratify: bool) -> dict[str, Examples]:
    """Cut the examples into named parts by ``fractions`` (which sum to 1), the same way for the same seed.

    With ``stratify`` every class is cut in these fractions, so each part has the classes in the shares that the
    whole has (to within one example a class).
    """
    random = np.random.default_rng(seed)
    classes = examples.labels if stratify else np.zeros(len(examples), dtype=np.int64)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in fractions}
    for label in np.unique(classes):
        rows = random.permutation(np.flatnonzero(classes == label))
        ends = np.rint(np.cumsum(list(fractions.values())) * len(rows)).astype(int)
        for name, start, end in zip(fractions, [0, *ends[:-1]], ends, strict=True):
            parts[name].append(rows[start:end])
    return {name: examples.take(np.sort(np.concatenate(rows))) for name, rows in parts.items()}


def save(examples: Examples, file: Path) -> None:
    """Write the examples as safetensors: ``inputs/NAME`` and ``labels``."""
    arrays = {f"inputs/{name}": array for name, array in examples.inputs.items()}
    write_arrays({**arrays, "labels": examples.labels}, file)


def read(file: Path) -> Examples:
    """Read what ``save`` wrote."""
    from safetensors.numpy import load_file

    arrays = load_file(file)
    labels = arrays.pop("labels")
    return Examples({name.removeprefix("inputs/"): array for name, array in arrays.items()}, labels)
