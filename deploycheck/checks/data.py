"""What the data are like, before anything is trained on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploycheck.checks.metric import metric
from deploycheck.language.vocabulary import Dimension
from deploycheck.verdict import Exact, Measurement

if TYPE_CHECKING:
    from deploycheck.stages.data import Dataset


@metric("missing_values", dimension=Dimension.COUNT, direction="lower", stages=["data"])
def missing_values(dataset: Dataset) -> Measurement:
    """Number of input values that are no number, over all splits."""
    from deploycheck.stages import data

    return Measurement(Exact(data.missing_values(dataset.splits.values())))


@metric("duplicates_across_splits", dimension=Dimension.COUNT, direction="lower", stages=["data"])
def duplicates_across_splits(dataset: Dataset) -> Measurement:
    """Number of inputs that stand, byte for byte, in more than one split: what is trained on can't test."""
    from deploycheck.stages import data

    return Measurement(Exact(data.duplicates_across(dataset.splits.values())))


@metric("smallest_class", dimension=Dimension.PROPORTION, direction="higher", stages=["data"], target="class")
def smallest_class(dataset: Dataset) -> Measurement:
    """Share of the rarest class among all examples."""
    from deploycheck.stages import data

    label, count, total = data.smallest_class(dataset.splits.values())
    return Measurement(Exact(count / total), note=f"class {label}: {count} of {total}")
