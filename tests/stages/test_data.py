from __future__ import annotations

from pathlib import Path

import numpy as np

from deploycheck.stages import data
from deploycheck.stages.examples import Examples, split
from tests.stages.rows import FRACTIONS, numbered


def test_a_dataset_comes_back_as_written(tmp_path: Path) -> None:
    splits = split(numbered(np.arange(50) % 3), FRACTIONS, seed=0, stratify=True)
    data.write(data.Dataset(splits, {"preprocess/0.scale/by": np.float32(2)}), tmp_path)
    again = data.read(tmp_path)
    for name in FRACTIONS:
        np.testing.assert_array_equal(again.splits[name].inputs["x"], splits[name].inputs["x"])
        np.testing.assert_array_equal(again.splits[name].labels, splits[name].labels)
    assert again.fitted["preprocess/0.scale/by"] == 2


def test_a_copy_in_another_split_is_counted() -> None:
    rows = np.arange(6, dtype=np.float32)[:, None]
    parts = [Examples({"x": rows[:3]}, np.zeros(3, int)), Examples({"x": rows[2:]}, np.zeros(4, int))]
    assert data.duplicates_across(parts) == 1
    assert data.duplicates_across([*parts[:1], Examples({"x": rows[3:]}, np.zeros(3, int))]) == 0


def test_missing_values_and_the_rarest_class_are_counted() -> None:
    parts = [Examples({"x": np.array([[1.0, np.nan], [np.nan, 2.0]])}, np.array([0, 1]))]
    assert data.missing_values(parts) == 2
    assert data.smallest_class([numbered(np.array([0, 0, 2, 2, 1]))]) == (1, 1, 5)
