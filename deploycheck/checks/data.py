"""Metrics of the data, measured before anything is trained on them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from deploycheck.checks.metric import metric
from deploycheck.language.vocabulary import Dimension
from deploycheck.lazy import np
from deploycheck.verdict import Exact, Measurement

if TYPE_CHECKING:
    from deploycheck.stages.data import Dataset
    from deploycheck.stages.examples import Examples


@metric("missing_values", dimension=Dimension.COUNT, direction="lower", stages=["data"], sample=Exact)
def missing_values(dataset: Dataset) -> Measurement:
    """Number of input values that are missing (NaN) or infinite, over all splits."""
    arrays = [array for split in dataset.splits.values() for array in split.inputs.values()]
    floats = [array for array in arrays if np.issubdtype(array.dtype, np.floating)]
    missing = sum(int(np.isnan(array).sum()) for array in floats)
    infinite = sum(int(np.isinf(array).sum()) for array in floats)
    reach = (0, sum(array.size for array in arrays))
    return Measurement(Exact(missing + infinite), reach=reach, note=f"{infinite} of them infinite" if infinite else "")


@metric("duplicates_across_splits", dimension=Dimension.COUNT, direction="lower", stages=["data"], sample=Exact)
def duplicates_across_splits(dataset: Dataset) -> Measurement:
    """Number of distinct inputs that more than one split has, byte for byte: training would see the test."""
    splits_with = Counter(digest for split in dataset.splits.values() for digest in set(_row_digests(split)))
    found = sum(splits > 1 for splits in splits_with.values())
    return Measurement(Exact(found), reach=(0, sum(map(len, dataset.splits.values())) // 2))


@metric(
    "smallest_class",
    dimension=Dimension.PROPORTION,
    direction="higher",
    stages=["data"],
    sample=Exact,
    task="classification",
)
def smallest_class(dataset: Dataset) -> Measurement:
    """Share of the rarest class among all examples of all splits."""
    counts = np.bincount(np.concatenate([split.labels for split in dataset.splits.values()]))
    rarest, total = int(np.argmin(counts)), int(counts.sum())
    return Measurement(Exact(int(counts[rarest]) / total), note=f"class {rarest}: {counts[rarest]} of {total}")


def _row_digests(examples: Examples) -> Iterator[bytes]:
    columns = [np.ascontiguousarray(examples.inputs[name]) for name in sorted(examples.inputs)]
    for row in range(len(examples)):
        digest = hashlib.blake2b(digest_size=16)
        for column in columns:
            digest.update(column[row].tobytes())
        yield digest.digest()
