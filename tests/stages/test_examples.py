from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploycheck.errors import DeploycheckError
from deploycheck.stages import examples as files
from deploycheck.stages.examples import Examples, as_examples, split
from deploycheck.stages.tasks.classification import CLASSIFICATION
from deploycheck.stages.tasks.regression import REGRESSION
from tests.stages.rows import FRACTIONS, numbered


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


def test_another_seed_splits_differently() -> None:
    examples = numbered(np.zeros(100, dtype=int))
    one, other = (split(examples, FRACTIONS, seed=seed, stratify=True)["test"] for seed in (0, 1))
    assert not np.array_equal(one.inputs["x"], other.inputs["x"])


def test_numbers_are_stratified_by_their_rank() -> None:
    labels = np.random.default_rng(0).lognormal(size=500).astype(np.float32)
    parts = split(numbered(labels), FRACTIONS, seed=0, stratify=True)
    for low, high in ((0, 0.1), (0.4, 0.6), (0.9, 1)):
        first, last = np.quantile(labels, [low, high])
        for name, fraction in FRACTIONS.items():
            count = ((first <= parts[name].labels) & (parts[name].labels <= last)).sum()
            assert abs(count - fraction * (high - low) * 500) <= 3


def test_one_array_of_inputs_is_given_the_name_of_the_one_input() -> None:
    x = np.arange(3.0)[:, None]
    found = as_examples((x, np.array([0, 1, 1])), ("x",), CLASSIFICATION)
    assert list(found.inputs) == ["x"]
    np.testing.assert_array_equal(found.inputs["x"], x)


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        (np.zeros(3), r"returned ndarray, expected \(inputs, labels\)"),
        (({"y": np.zeros(3)}, np.zeros(3, int)), r"gives the inputs \['y'\], the model declares \['x'\]"),
        ((np.zeros((3, 1)), np.zeros(2, int)), "different lengths"),
        ((np.float32(1), np.zeros(2, int)), "gives 'x' as a single float32, expected an array of examples"),
        ((np.ma.masked_less(np.zeros((3, 1)), 1), np.zeros(3, int)), "gives 'x' as a masked array"),
        ((np.zeros((0, 1)), np.zeros(0, int)), "the loader gives no examples"),
        ((np.zeros((3, 1)), np.array([0.5, 1, 2])), "expected class numbers"),
        ((np.zeros((3, 1)), np.array([-1, 1, 2])), "class numbers from 0"),
    ],
)
def test_what_is_wrong_with_a_loaders_answer_is_reported(loaded: object, message: str) -> None:
    with pytest.raises(DeploycheckError, match=message):
        as_examples(loaded, ("x",), CLASSIFICATION)


def test_one_array_for_a_model_with_two_inputs_is_refused() -> None:
    with pytest.raises(DeploycheckError, match="one array of inputs, the model has 2: left, right"):
        as_examples((np.zeros((3, 1)), np.zeros(3, int)), ("left", "right"), CLASSIFICATION)


def test_labels_are_those_of_the_task() -> None:
    loaded = (np.zeros((3, 1)), np.array([0.5, -1, 2]))
    assert as_examples(loaded, ("x",), REGRESSION).labels.dtype == np.float32
    with pytest.raises(DeploycheckError, match="expected class numbers"):
        as_examples(loaded, ("x",), CLASSIFICATION)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"label": np.zeros(4)}, "a column can't be called 'label'"),
        ({"site": np.zeros((4, 2))}, r"the column 'site' has the shape \(4, 2\), expected \[n\]"),
        ({"site": np.zeros(3)}, "different lengths"),
    ],
)
def test_a_column_that_could_be_misread_is_refused(columns: dict[str, np.ndarray], says: str) -> None:
    with pytest.raises(DeploycheckError, match=says):
        as_examples((np.zeros((4, 1)), np.zeros(4, int), columns), ("x",), CLASSIFICATION)


def test_slicing_by_a_column_that_is_missing_lists_those_there_are() -> None:
    examples = Examples({"x": np.zeros((2, 1))}, np.zeros(2, int), {"site": np.array(["a", "b"])})
    with pytest.raises(DeploycheckError, match="there is no column 'sight' to slice by; there are: label, site"):
        examples.column("sight")


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=9))
def test_examples_are_read_as_they_were_saved(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    file = tmp_path_factory.mktemp("examples") / "part.safetensors"
    count = len(texts)
    examples = Examples({"x": np.arange(count)[:, None]}, np.arange(count), {"site": np.array(texts)})
    files.save(examples, file)
    again = files.read(file)
    np.testing.assert_array_equal(again.inputs["x"], examples.inputs["x"])
    np.testing.assert_array_equal(again.labels, examples.labels)
    assert again.columns["site"].tolist() == texts


def test_taking_rows_takes_them_of_everything() -> None:
    examples = Examples({"x": np.arange(4)}, np.array([0, 1, 2, 3]), {"site": np.array(list("abcd"))})
    taken = examples.take(np.array([3, 1]))
    assert taken.inputs["x"].tolist() == taken.labels.tolist() == [3, 1]
    assert taken.columns["site"].tolist() == ["d", "b"]


def test_a_saved_part_keeps_its_columns(tmp_path: Path) -> None:
    examples = Examples({"x": np.zeros((3, 1))}, np.zeros(3, int), {"site": np.array(["a", "", "Ünit"])})
    files.save(examples.take(slice(1, 3)), tmp_path / "part.safetensors")
    assert files.read(tmp_path / "part.safetensors").columns["site"].tolist() == ["", "Ünit"]
