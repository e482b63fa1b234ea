from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploycheck.errors import DeploycheckError
from deploycheck.stages import data, loaders
from deploycheck.stages.examples import Examples, as_examples, split
from deploycheck.stages.preprocess import apply_all, fill_missing, fit_all, scale, standardize

FRACTIONS = {"train": 0.6, "validation": 0.2, "test": 0.2}


def numbered(labels: np.ndarray) -> Examples:
    return Examples({"x": np.arange(len(labels), dtype=np.float32)[:, None]}, labels)


@given(st.lists(st.integers(0, 3), min_size=20, max_size=200), st.integers(0, 5), st.booleans())
def test_a_split_is_a_partition_and_repeats(labels: list[int], seed: int, stratify: bool) -> None:
    examples = numbered(np.array(labels))
    one = split(examples, FRACTIONS, seed=seed, stratify=stratify)
    other = split(examples, FRACTIONS, seed=seed, stratify=stratify)
    rows = np.concatenate([part.inputs["x"][:, 0] for part in one.values()])
    assert sorted(rows) == list(range(len(labels)))
    for name in FRACTIONS:
        np.testing.assert_array_equal(one[name].inputs["x"], other[name].inputs["x"])


@given(st.lists(st.integers(0, 3), min_size=20, max_size=200))
def test_a_stratified_split_keeps_the_shares_of_classes(labels: list[int]) -> None:
    parts = split(numbered(np.array(labels)), FRACTIONS, seed=0, stratify=True)
    for label in set(labels):
        for name, fraction in FRACTIONS.items():
            assert abs((parts[name].labels == label).sum() - fraction * labels.count(label)) <= 1


def test_another_seed_splits_otherwise() -> None:
    examples = numbered(np.zeros(100, dtype=int))
    one, other = (split(examples, FRACTIONS, seed=seed, stratify=True)["test"] for seed in (0, 1))
    assert not np.array_equal(one.inputs["x"], other.inputs["x"])


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        (np.zeros(3), r"expected \(inputs, labels\)"),
        (({"y": np.zeros(3)}, np.zeros(3, int)), r"gives the inputs \['y'\], the model declares \['x'\]"),
        ((np.zeros((3, 1)), np.zeros(2, int)), "different lengths"),
        ((np.zeros((3, 1)), np.array([0.5, 1, 2])), "expected class numbers"),
        ((np.zeros((3, 1)), np.array([-1, 1, 2])), "class numbers from 0"),
    ],
)
def test_what_a_loader_got_wrong_is_said(loaded: object, message: str) -> None:
    with pytest.raises(DeploycheckError, match=message):
        as_examples(loaded, ("x",), "class", "data.load")


def test_labels_that_are_numbers_are_any_finite_ones() -> None:
    inputs = np.zeros((3, 1))
    for labels in (np.array([0.5, -1, 2]), np.array([-1, 0, 300])):
        found = as_examples((inputs, labels), ("x",), "number", "data.load").labels
        np.testing.assert_array_equal(found, labels.astype(np.float32))
        assert found.dtype == np.float32
    for labels, message in ((np.array([1, np.nan, np.inf]), "2 of 3 labels are not finite"), (np.zeros((3, 2)), "[n]")):
        with pytest.raises(DeploycheckError, match=re.escape(message)):
            as_examples((inputs, labels), ("x",), "number", "data.load")


def test_numbers_are_stratified_by_their_rank() -> None:
    labels = np.random.default_rng(0).lognormal(size=500).astype(np.float32)
    parts = split(numbered(labels), FRACTIONS, seed=0, stratify=True)
    for low, high in ((0, 0.1), (0.4, 0.6), (0.9, 1)):
        first, last = np.quantile(labels, [low, high])
        for name, fraction in FRACTIONS.items():
            count = ((first <= parts[name].labels) & (parts[name].labels <= last)).sum()
            assert abs(count - fraction * (high - low) * 500) <= 3


def test_a_dataset_comes_back_as_written(tmp_path: Path) -> None:
    splits = split(numbered(np.arange(50) % 3), FRACTIONS, seed=0, stratify=True)
    data.write(data.Dataset(splits, {"preprocess/0.scale/by": np.float32(2)}), tmp_path)
    again = data.read(tmp_path)
    for name in FRACTIONS:
        np.testing.assert_array_equal(again.splits[name].inputs["x"], splits[name].inputs["x"])
        np.testing.assert_array_equal(again.splits[name].labels, splits[name].labels)
    assert again.fitted["preprocess/0.scale/by"] == 2


def test_preprocessing_learns_from_what_it_is_given_only() -> None:
    steps = [
        ("fill_missing", fill_missing, {}),
        ("scale", scale, {"by": 2.0}),
        ("standardize", standardize, {}),
    ]
    training = {"x": np.array([[1.0], [np.nan], [3.0]], np.float32)}
    fitted = fit_all(steps, training, "data.preprocess")
    out = np.asarray(apply_all(steps)(fitted, {"x": np.array([[2.0], [np.nan], [100.0]], np.float32)})["x"])
    assert out[0] == pytest.approx(0, abs=1e-5)
    assert out[1] == pytest.approx(0, abs=1e-5)
    assert out[2] == pytest.approx((200 - 4) / np.std([2, 4, 6]), rel=1e-3)


def test_a_step_with_wrong_options_is_named() -> None:
    with pytest.raises(DeploycheckError, match="preprocessing step 'scale' can't be fitted"):
        fit_all([("scale", scale, {"byy": 2})], {"x": np.ones((2, 1))}, "data.preprocess")


def test_a_copy_in_another_split_is_counted() -> None:
    rows = np.arange(6, dtype=np.float32)[:, None]
    parts = [Examples({"x": rows[:3]}, np.zeros(3, int)), Examples({"x": rows[2:]}, np.zeros(4, int))]
    assert data.duplicates_across(parts) == 1
    assert data.duplicates_across([*parts[:1], Examples({"x": rows[3:]}, np.zeros(3, int))]) == 0


def test_missing_values_and_the_rarest_class_are_counted() -> None:
    parts = [Examples({"x": np.array([[1.0, np.nan], [np.nan, 2.0]])}, np.array([0, 1]))]
    assert data.missing_values(parts) == 2
    assert data.smallest_class([numbered(np.array([0, 0, 2, 2, 1]))]) == (1, 1, 5)


def test_npz_csv_and_parquet_give_the_same_examples(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    x, y = np.array([0.5, 1.5, 2.5]), np.array([0, 1, 0])
    np.savez(tmp_path / "d.npz", x=x, labels=y)
    (tmp_path / "d.csv").write_text("x,labels\n0.5,0\n1.5,1\n2.5,0\n")
    parquet.write_table(pyarrow.table({"x": x, "labels": y}), tmp_path / "d.parquet")
    for load, name in ((loaders.npz, "d.npz"), (loaders.csv, "d.csv"), (loaders.parquet, "d.parquet")):
        inputs, labels, _ = load(tmp_path / name, labels="labels")
        np.testing.assert_array_equal(inputs["x"], x)
        np.testing.assert_array_equal(labels, y)


def test_columns_to_slice_by_are_kept_apart_as_they_are_written(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    x, y, ward = np.array([0.5, 1.5, 2.5]), np.array([0, 1, 0]), np.array(["north", "7 a", "south"])
    np.savez(tmp_path / "d.npz", x=x, labels=y, **{"the ward (old)": ward})
    (tmp_path / "d.csv").write_text("the ward (old), x,labels\nnorth,0.5,0\n7 a,1.5,1\nsouth,2.5,0\n")
    parquet.write_table(pyarrow.table({"the ward (old)": ward, "x": x, "labels": y}), tmp_path / "d.parquet")
    for load, name in ((loaders.npz, "d.npz"), (loaders.csv, "d.csv"), (loaders.parquet, "d.parquet")):
        inputs, labels, columns = load(tmp_path / name, labels="labels", columns=["the ward (old)"])
        assert list(inputs) == ["x"]
        np.testing.assert_array_equal(labels, y)
        assert columns["the ward (old)"].tolist() == ward.tolist()
        with pytest.raises(DeploycheckError, match=r"no column or array 'wrad' to slice by; there are: .*x.*labels"):
            load(tmp_path / name, labels="labels", columns=["wrad"])


def test_labels_with_a_fraction_stay_numbers(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("x,labels\n0.5,0.25\n1.5,1\n")
    _, labels, _ = loaders.csv(tmp_path / "d.csv", labels="labels")
    assert labels.tolist() == [0.25, 1.0]


def test_an_archive_of_python_objects_is_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", labels=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DeploycheckError, match="can't be read as an npz archive"):
        loaders.npz(tmp_path / "d.npz")


def test_a_missing_label_column_lists_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("x,y\n1,0\n")
    with pytest.raises(DeploycheckError, match=r"no column or array 'label'.*there are: x, y"):
        loaders.csv(tmp_path / "d.csv", labels="label")


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"label": np.zeros(4)}, "a column can't be called 'label'"),
        ({"site": np.zeros((4, 2))}, r"the column 'site' has the shape \(4, 2\), expected \[n\]"),
    ],
)
def test_a_column_that_could_be_misread_is_refused(columns: dict[str, np.ndarray], says: str) -> None:
    with pytest.raises(DeploycheckError, match=says):
        as_examples((np.zeros((4, 1)), np.zeros(4, int), columns), ("x",), "class", "data")


def test_a_column_of_measurements_is_not_cut_into_a_slice_a_value() -> None:
    examples = Examples({"x": np.zeros((500, 1))}, np.zeros(500, int), {"age": np.arange(500).astype(str)})
    with pytest.raises(DeploycheckError, match="age has 500 different values, 200 slices are the most"):
        examples.slices("age", "spec::train::accuracy")
