"""A dataset as files: its splits, and what the preprocessing learned from the training split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploycheck.errors import DeploycheckError
from deploycheck.stages import examples as files
from deploycheck.stages.examples import SPLITS, Examples
from deploycheck.store.arrays import write_arrays

FITTED = "preprocess.safetensors"
MOST_SLICES = 200


@dataclass(frozen=True)
class Dataset:
    """The splits of raw examples that were read, and what the preprocessing learned from the training split."""

    splits: Mapping[str, Examples]
    fitted: Mapping[str, np.ndarray]

    def slices(self, by: str) -> dict[str, np.ndarray]:
        """Return the rows of the test split in each slice: of one ``label``, or with one value in the column ``by``.

        A value that only other splits have is a slice without rows.
        """
        values = np.unique(np.concatenate([split.column(by) for split in self.splits.values()]))
        if len(values) > MOST_SLICES:
            what = f"{by} has {len(values)} different values, {MOST_SLICES} slices are the most"
            raise DeploycheckError(what, hint="have the loader group them")
        column = self.splits["test"].column(by)
        return {str(value): np.flatnonzero(column == value) for value in values}

    def untested_labels(self) -> list[str]:
        """Return the labels that another split has and no test example."""
        known = np.unique(np.concatenate([split.labels for split in self.splits.values()]))
        return [str(label) for label in np.setdiff1d(known, self.splits["test"].labels)]


def write(dataset: Dataset, folder: Path) -> None:
    """Write the dataset into ``folder``: one safetensors file per split, and one of what was fitted."""
    for name in SPLITS:
        files.save(dataset.splits[name], folder / f"{name}.safetensors")
    write_arrays(dataset.fitted, folder / FITTED)


def read(folder: Path, splits: Sequence[str] = SPLITS) -> Dataset:
    """Read what ``write`` wrote; of the splits those that are named, and no other."""
    from safetensors.numpy import load_file

    return Dataset({name: files.read(folder / f"{name}.safetensors") for name in splits}, load_file(folder / FITTED))
