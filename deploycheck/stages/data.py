"""The data stage: load, split, fit the preprocessing, and count what the data checks ask about."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
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
    """Write the dataset into ``folder``: a safetensors file a split, and one of what was fitted."""
    for name in SPLITS:
        files.save(dataset.splits[name], folder / f"{name}.safetensors")
    write_arrays(dataset.fitted, folder / FITTED)


def read(folder: Path) -> Dataset:
    """Read what ``write`` wrote."""
    from safetensors.numpy import load_file

    splits = {name: files.read(folder / f"{name}.safetensors") for name in SPLITS}
    return Dataset(splits, load_file(folder / FITTED))


def missing_values(splits: Iterable[Examples]) -> int:
    """Count the values that are no number (NaN) in the inputs of all splits."""
    return sum(
        int(np.isnan(array).sum())
        for split in splits
        for array in split.inputs.values()
        if np.issubdtype(array.dtype, np.floating)
    )


def duplicates_across(splits: Iterable[Examples]) -> int:
    """Count the distinct inputs that stand, byte for byte, in more than one split."""
    standing_in = Counter(digest for split in splits for digest in set(_row_digests(split)))
    return sum(count > 1 for count in standing_in.values())


def _row_digests(examples: Examples) -> Iterable[bytes]:
    columns = [np.ascontiguousarray(examples.inputs[name]) for name in sorted(examples.inputs)]
    for row in range(len(examples)):
        digest = hashlib.blake2b(digest_size=16)
        for column in columns:
            digest.update(column[row].tobytes())
        yield digest.digest()


def smallest_class(splits: Iterable[Examples]) -> tuple[int, int, int]:
    """Return the rarest class over all splits, its number of examples, and the number of all examples."""
    labels = np.concatenate([split.labels for split in splits])
    counts = np.bincount(labels)
    rarest = int(np.argmin(counts))
    return rarest, int(counts[rarest]), len(labels)
