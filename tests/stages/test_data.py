from __future__ import annotations

from pathlib import Path

import numpy as np

from deploycheck.stages import data
from deploycheck.stages.examples import split
from tests.stages.rows import FRACTIONS, numbered


def test_a_dataset_comes_back_as_written(tmp_path: Path) -> None:
    splits = split(numbered(np.arange(50) % 3), FRACTIONS, seed=0, stratify=True)
    data.write(data.Dataset(splits, {"preprocess/0.scale/by": np.float32(2)}), tmp_path)
    again = data.read(tmp_path)
    for name in FRACTIONS:
        np.testing.assert_array_equal(again.splits[name].inputs["x"], splits[name].inputs["x"])
        np.testing.assert_array_equal(again.splits[name].labels, splits[name].labels)
    assert again.fitted["preprocess/0.scale/by"] == 2
