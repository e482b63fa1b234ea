from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from deploycheck.checks.data import duplicates_across_splits, missing_values, smallest_class
from deploycheck.stages.data import Dataset
from deploycheck.stages.examples import SPLITS, Examples
from deploycheck.verdict import Exact, Measurement


def dataset(*rows: Sequence[object], labels: Sequence[Sequence[int]] | None = None, dtype: str = "float32") -> Dataset:
    """Return a dataset of one input, from the rows of each split."""
    numbered = labels or [[0] * len(part) for part in rows]
    splits = {
        name: Examples({"x": np.array(part, dtype)}, np.array(numbers, np.int64))
        for name, part, numbers in zip(SPLITS, rows, numbered, strict=True)
    }
    return Dataset(splits, {})


NAN = float("nan")


def test_missing_values_are_counted_over_all_splits_and_inputs() -> None:
    data = dataset([[1, NAN], [NAN, NAN]], [[0, 1]], [[NAN, 2]])
    assert missing_values.measure(data) == Measurement(Exact(4))
    train = data.splits["train"]
    more = Examples({**train.inputs, "y": np.array([NAN, 0], np.float16)}, train.labels)
    assert missing_values.measure(Dataset({**data.splits, "train": more}, {})).sample == Exact(5)


def test_integers_have_no_missing_values() -> None:
    assert missing_values.measure(dataset([[1]], [[2]], [[3]], dtype="int32")).sample == Exact(0)


def test_an_infinite_value_counts_as_missing_and_is_named() -> None:
    measured = missing_values.measure(dataset([[np.inf]], [[-np.inf]], [[NAN]]))
    assert measured == Measurement(Exact(3), note="2 of them infinite")


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        ([[[1, 2], [3, 4]], [[5, 6]], [[7, 8]]], 0),
        ([[[1, 2], [3, 4]], [[5, 6]], [[3, 4]]], 1),
        ([[[1, 2], [3, 4]], [[1, 2]], [[3, 4]]], 2),
        ([[[1, 2]] * 3, [[5, 6]] * 2, [[7, 8]]], 0),
        ([[[1, 2]] * 3, [[1, 2]] * 2, [[7, 8]]], 1),
        ([[[1, 2]], [[2, 1]], [[7, 8]]], 0),
        ([[[NAN]], [[NAN]], [[1]]], 1),
        ([[[0.0]], [[-0.0]], [[1]]], 0),
        ([[[1, 2]], [[1, 2]], [[1, 2]]], 1),
    ],
    ids=["none", "test", "both", "within", "once", "order", "nan", "bytes", "everywhere"],
)
def test_an_input_in_more_than_one_split_is_counted_once(rows: list[list[list[float]]], count: int) -> None:
    assert duplicates_across_splits.measure(dataset(*rows)) == Measurement(Exact(count))


def test_a_duplicate_is_one_in_every_input_whatever_its_label() -> None:
    def part(x: float, y: float, label: int) -> Examples:
        return Examples({"x": np.array([x]), "y": np.array([y])}, np.array([label]))

    same = Dataset({"train": part(1, 2, 0), "validation": part(5, 5, 0), "test": part(1, 2, 1)}, {})
    half = Dataset({"train": part(1, 2, 0), "validation": part(5, 5, 0), "test": part(1, 3, 0)}, {})
    swapped = Dataset({"train": part(1, 2, 0), "validation": part(5, 5, 0), "test": part(2, 1, 0)}, {})
    counted = [duplicates_across_splits.measure(each).sample for each in (same, half, swapped)]
    assert counted == [Exact(1), Exact(0), Exact(0)]


def test_the_smallest_class_is_a_share_of_all_examples_of_all_splits() -> None:
    data = dataset([[0]] * 5, [[0]] * 2, [[0]] * 3, labels=[[0, 0, 0, 1, 2], [1, 2], [1, 0, 0]])
    measured = smallest_class.measure(data)
    assert measured == Measurement(Exact(0.2), note="class 2: 2 of 10")


def test_a_class_that_is_skipped_has_no_share_at_all() -> None:
    data = dataset([[0]] * 2, [[0]], [[0]], labels=[[0, 2], [2], [0]])
    assert smallest_class.measure(data) == Measurement(Exact(0.0), note="class 1: 0 of 4")
