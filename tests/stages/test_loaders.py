from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from deploycheck.errors import DeploycheckError
from deploycheck.stages import loaders

LOADERS: dict[str, Callable[..., Any]] = {
    "d.npz": loaders.npz,
    "d.csv": loaders.csv,
    "d.parquet": loaders.parquet,
}


@pytest.mark.parametrize("name", LOADERS)
def test_every_loader_gives_the_same_examples(name: str, tmp_path: Path) -> None:
    x, y = np.array([0.5, 1.5, 2.5]), np.array([0, 1, 0])
    np.savez(tmp_path / "d.npz", x=x, labels=y)
    (tmp_path / "d.csv").write_text("x,labels\n0.5,0\n1.5,1\n2.5,0\n")
    parquet.write_table(pyarrow.table({"x": x, "labels": y}), tmp_path / "d.parquet")
    inputs, labels, columns = LOADERS[name](tmp_path / name, labels="labels")
    np.testing.assert_array_equal(inputs["x"], x)
    np.testing.assert_array_equal(labels, y)
    assert columns == {}


@pytest.mark.parametrize("name", LOADERS)
def test_columns_to_slice_by_are_kept_apart_as_they_are_written(name: str, tmp_path: Path) -> None:
    x, y, ward = np.array([0.5, 1.5, 2.5]), np.array([0, 1, 0]), np.array(["north", "7 a", "south"])
    np.savez(tmp_path / "d.npz", x=x, labels=y, **{"the ward (old)": ward})
    (tmp_path / "d.csv").write_text("the ward (old), x,labels\nnorth,0.5,0\n7 a,1.5,1\nsouth,2.5,0\n")
    parquet.write_table(pyarrow.table({"the ward (old)": ward, "x": x, "labels": y}), tmp_path / "d.parquet")
    inputs, labels, columns = LOADERS[name](tmp_path / name, labels="labels", columns=["the ward (old)"])
    assert list(inputs) == ["x"]
    np.testing.assert_array_equal(labels, y)
    assert columns["the ward (old)"].tolist() == ward.tolist()
    with pytest.raises(DeploycheckError, match=r"no column or array 'wrad' to slice by; there are: .*x.*labels"):
        LOADERS[name](tmp_path / name, labels="labels", columns=["wrad"])


def test_features_can_be_one_input(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("a,labels,b\n1,0,2\n3,1,\n")
    inputs, labels, _ = loaders.csv(tmp_path / "d.csv", labels="labels", input="x")
    np.testing.assert_array_equal(inputs["x"], np.array([[1, 2], [3, np.nan]], np.float32))
    assert labels.tolist() == [0, 1]


def test_labels_with_a_fraction_stay_numbers(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("x,labels\n0.5,0.25\n1.5,1\n")
    _, labels, _ = loaders.csv(tmp_path / "d.csv", labels="labels")
    assert labels.tolist() == [0.25, 1.0]


def test_an_archive_of_python_objects_is_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", labels=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DeploycheckError, match="can't be read as an npz archive"):
        loaders.npz(tmp_path / "d.npz")


@pytest.mark.parametrize("name", LOADERS)
def test_a_file_that_is_missing_is_an_error_at_its_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(DeploycheckError, match="can't be read as") as caught:
        LOADERS[name](tmp_path / name, labels="labels")
    assert caught.value.where == str(tmp_path / name)


def test_a_missing_label_column_lists_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("x,y\n1,0\n")
    with pytest.raises(DeploycheckError, match=r"no column or array 'label'.*there are: x, y"):
        loaders.csv(tmp_path / "d.csv", labels="label")
