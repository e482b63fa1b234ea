from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from deploycheck.errors import DeploycheckError
from deploycheck.stages import loaders
from deploycheck.stages.examples import as_examples
from deploycheck.stages.tasks.classification import CLASSIFICATION

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
    with pytest.raises(DeploycheckError, match="its array 'labels' can't be read: Object arrays"):
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


def test_a_csv_table_without_features_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("y,site\n1,a\n")
    with pytest.raises(DeploycheckError, match="has no features: y, site are the labels and what is under `columns`"):
        loaders.csv(tmp_path / "d.csv", labels="y", columns=["site"])


def test_the_labels_can_not_be_a_column_to_slice_by_too(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("x,y\n1,0\n")
    with pytest.raises(DeploycheckError, match="'y' is the labels, so it can't be one of `columns` too"):
        loaders.csv(tmp_path / "d.csv", labels="y", columns=["y"])


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("x,x,y\n1,2,0\n")
    with pytest.raises(DeploycheckError, match="two columns are called 'x'"):
        loaders.csv(tmp_path / "d.csv", labels="y")
    table = pyarrow.Table.from_arrays([pyarrow.array([1.0])] * 3, names=["x", "x", "y"])
    parquet.write_table(table, tmp_path / "d.parquet")
    with pytest.raises(DeploycheckError, match="two columns are called 'x'"):
        loaders.parquet(tmp_path / "d.parquet", labels="y")


def test_an_example_without_a_label_is_refused_at_its_row(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("x,y\n1,0\n\n2,\n")
    with pytest.raises(DeploycheckError, match="this example has no label") as caught:
        loaders.csv(tmp_path / "d.csv", labels="y")
    assert caught.value.where == f"{tmp_path}/d.csv:4"
    parquet.write_table(pyarrow.table({"x": [1.0, 2.0], "y": [0, None]}), tmp_path / "d.parquet")
    with pytest.raises(DeploycheckError, match="this example has no label") as caught:
        loaders.parquet(tmp_path / "d.parquet", labels="y")
    assert caught.value.where == f"{tmp_path}/d.parquet, row 2"
    np.savez(tmp_path / "d.npz", x=np.zeros(2), labels=np.array([np.nan, 1]))
    with pytest.raises(DeploycheckError, match="this example has no label") as caught:
        loaders.npz(tmp_path / "d.npz")
    assert caught.value.where == f"{tmp_path}/d.npz, row 1"


def test_a_number_beyond_float32_is_not_made_infinite(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("x,y\n1e38,0\n1e39,0\n")
    with pytest.raises(DeploycheckError, match=r"column 'x' holds 1e\+39, which is too large for float32") as caught:
        loaders.csv(tmp_path / "d.csv", labels="y")
    assert caught.value.where == f"{tmp_path}/d.csv:3"
    np.savez(tmp_path / "d.npz", x=np.array([1e39]), labels=np.array([0]))
    with pytest.raises(DeploycheckError, match="the array 'x' holds 1e"):
        loaders.npz(tmp_path / "d.npz")


@pytest.mark.parametrize(
    "x",
    [
        np.array([[0.5, 1.5], [2.5, np.nan]], ">f4"),
        np.asfortranarray(np.array([[0.5, 1.5], [2.5, np.inf]], np.float32)),
        np.array([[0.5, 1.5], [2.5, 3.5]]),
        np.array([[1, 2], [3, 4]]),
        np.array([[1, 2], [3, 4]], np.uint8),
        np.array([[True, False], [False, False]]),
    ],
    ids=lambda array: str(array.dtype),
)
@pytest.mark.parametrize("y", [np.array([1, 0], ">i8"), np.array([1.0, 0.0]), np.array([True, False])], ids=str)
def test_an_archive_of_any_numbers_can_be_read(x: np.ndarray, y: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=x, labels=y)
    examples = as_examples(loaders.npz(tmp_path / "d.npz"), ("x",), CLASSIFICATION)
    np.testing.assert_array_equal(examples.inputs["x"], x)
    assert examples.inputs["x"].dtype.isnative
    assert examples.inputs["x"].dtype.name not in ("float64", "int64")
    assert examples.labels.tolist() == [1, 0]


@pytest.mark.parametrize("x", [np.array(["a"]), np.array([1], "M8[s]"), np.array([1], "m8[s]"), np.array([1j])])
def test_an_array_of_something_else_is_no_input(x: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=x, labels=np.array([0]))
    with pytest.raises(
        DeploycheckError, match=r"the array 'x' is .*: only numbers and booleans can be inputs"
    ) as caught:
        loaders.npz(tmp_path / "d.npz")
    assert caught.value.where == str(tmp_path / "d.npz")


def write_all(folder: Path) -> None:
    x, y = np.linspace(0, 1, 50), np.arange(50) % 2
    np.savez(folder / "d.npz", x=x, labels=y)
    (folder / "d.csv").write_text("x,labels\n" + "".join(f"{a},{b}\n" for a, b in zip(x, y, strict=True)))
    parquet.write_table(pyarrow.table({"x": x, "labels": y}), folder / "d.parquet")


@pytest.mark.parametrize("name", ["d.npz", "d.parquet"])
def test_a_file_that_is_cut_off_anywhere_is_an_error_at_its_path(name: str, tmp_path: Path) -> None:
    write_all(tmp_path)
    content = (tmp_path / name).read_bytes()
    for end in range(0, len(content), 37):
        (tmp_path / name).write_bytes(content[:end])
        with pytest.raises(DeploycheckError, match="can't be read as") as caught:
            LOADERS[name](tmp_path / name, labels="labels")
        assert caught.value.where == str(tmp_path / name)


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("other", LOADERS)
def test_a_file_of_another_form_is_an_error_at_its_path(name: str, other: str, tmp_path: Path) -> None:
    if name == other:
        return
    write_all(tmp_path)
    (tmp_path / other).replace(tmp_path / name)
    with pytest.raises(DeploycheckError) as caught:
        LOADERS[name](tmp_path / name, labels="labels")
    assert caught.value.where.startswith(str(tmp_path / name))


@pytest.mark.parametrize("name", LOADERS)
def test_a_folder_is_not_read_as_a_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(DeploycheckError, match="it is not a file") as caught:
        LOADERS[name](tmp_path / name, labels="labels")
    assert caught.value.where == str(tmp_path / name)


@pytest.mark.parametrize("write", [np.save, lambda path, array: path.write_text("x,y\n1,2\n")], ids=["npy", "text"])
def test_what_is_no_archive_is_refused(write: Callable[..., Any], tmp_path: Path) -> None:
    write(tmp_path / "d.npy", np.zeros(3))
    with pytest.raises(DeploycheckError, match="it is not a zip file, or it was cut off"):
        loaders.npz(tmp_path / "d.npy")


def test_a_zip_archive_of_other_files_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.txt", "1 2 3")
    with pytest.raises(DeploycheckError, match=r"its part 'x\.txt' is not an array of examples"):
        loaders.npz(tmp_path / "d.npz")


@pytest.mark.parametrize("name", ["d.csv", "d.parquet"])
def test_a_table_without_rows_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("x,labels\n")
    parquet.write_table(pyarrow.table({"x": np.zeros(0), "labels": np.zeros(0, int)}), tmp_path / "d.parquet")
    with pytest.raises(DeploycheckError, match="has no rows") as caught:
        LOADERS[name](tmp_path / name, labels="labels")
    assert caught.value.where == str(tmp_path / name)
