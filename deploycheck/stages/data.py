"""A dataset as files: its splits, and what the preprocessing learned from the training split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploycheck.stages import examples as files
from deploycheck.stages.examples import SPLITS, Examples
from deploycheck.store.arrays import write_arrays

FITTED = "preprocess.safetensors"


@dataclass(frozen=True)
class Dataset:
    """The three splits of raw examples, and what the preprocessing learned from the training split."""

    splits: Mapping[str, Examples]
    fitted: Mapping[str, np.ndarray]


def write(dataset: Dataset, folder: Path) -> None:
    """Write the dataset into ``folder``: one safetensors file per split, and one of what was fitted."""
    for name in SPLITS:
        files.save(dataset.splits[name], folder / f"{name}.safetensors")
    write_arrays(dataset.fitted, folder / FITTED)


def read(folder: Path) -> Dataset:
    """Read what ``write`` wrote."""
    from safetensors.numpy import load_file

    splits = {name: files.read(folder / f"{name}.safetensors") for name in SPLITS}
    return Dataset(splits, load_file(folder / FITTED))
