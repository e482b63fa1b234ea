from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deploycheck.errors import DeploycheckError
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


def dataset(labels: dict[str, list[int]], columns: dict[str, list[str]]) -> data.Dataset:
    return data.Dataset(
        {
            name: Examples({"x": np.zeros((len(of), 1))}, np.array(of, np.int64), {"site": np.array(columns[name])})
            for name, of in labels.items()
        },
        {},
    )


HOSPITAL = dataset(
    {"train": [0, 1, 3], "validation": [10], "test": [1, 1, 0]},
    {"train": ["north", "east", "east"], "validation": ["west"], "test": ["north", "south", "north"]},
)


def test_a_slice_has_the_test_rows_of_a_value_that_any_split_has() -> None:
    sites = {name: rows.tolist() for name, rows in HOSPITAL.slices("site").items()}
    assert sites == {"east": [], "north": [0, 2], "south": [1], "west": []}
    labels = {name: rows.tolist() for name, rows in HOSPITAL.slices("label").items()}
    assert labels == {"0": [2], "1": [0, 1], "3": [], "10": []}


def test_the_labels_without_a_test_example_are_known() -> None:
    assert HOSPITAL.untested_labels() == ["3", "10"]


def test_a_column_of_measurements_is_not_cut_into_one_slice_per_value() -> None:
    part = Examples({"x": np.zeros((500, 1))}, np.zeros(500, int), {"age": np.arange(500).astype(str)})
    with pytest.raises(DeploycheckError, match="age has 500 different values, 200 slices are the most"):
        data.Dataset(dict.fromkeys(FRACTIONS, part), {}).slices("age")
