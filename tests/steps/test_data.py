from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.language.spec import Input, Split
from deploycheck.steps import STEP_KINDS
from deploycheck.store import Artifact
from tests.planning import built_in
from tests.steps.making import Steps, data_settings
from tests.steps.users import clusters

SUBJECTS = STEP_KINDS["data"].subjects


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    """Steps of a project in a folder of its own."""
    (tmp_path / "project").mkdir()
    return Steps(tmp_path, built_in(tmp_path / "project"))


def test_the_examples_are_split_and_the_preprocessing_is_fitted(data: Artifact) -> None:
    assert data.meta["examples"] == {"train": 54, "validation": 18, "test": 18}
    dataset = SUBJECTS["dataset"].read(data, None)
    assert {name: len(part) for name, part in dataset.splits.items()} == data.meta["examples"]
    assert dataset.fitted["preprocess/0.scale/by"] == pytest.approx(0.5)
    x, _, columns = clusters(90)
    rows = {row.tobytes(): half for row, half in zip(x, columns["half"], strict=True)}
    test = dataset.splits["test"]
    assert [rows[row.tobytes()] for row in test.inputs["x"]] == list(test.columns["half"])


def test_the_labels_are_those_of_the_test_split(data: Artifact) -> None:
    labels = SUBJECTS["labels"].read(data, "int8")
    np.testing.assert_array_equal(labels, SUBJECTS["dataset"].read(data, None).splits["test"].labels)
    assert np.bincount(labels).tolist() == [6, 6, 6]  # stratified


def test_the_same_settings_give_the_same_bytes(data: Artifact, steps: Steps) -> None:
    assert steps.make("data", data_settings(load="tests.steps.users:clusters")).digest == data.digest
    other = data_settings(split=Split(train=0.6, validation=0.2, test=0.2, seed=1))
    assert steps.make("data", other, "other").digest != data.digest


def table(folder: Path) -> Path:
    file = folder / "table.csv"
    file.write_text("a,b,label\n" + "".join(f"{row},{row}.5,{row % 2}\n" for row in range(20)))
    return file


CSV: dict[str, Any] = {"load": "csv", "preprocess": (), "input": {"x": Input(shape=(2,), dtype="float32")}}


def test_a_path_is_looked_up_in_the_project(steps: Steps) -> None:
    table(steps.extensions.root)
    artifact = steps.make(
        "data", data_settings(**CSV, arguments={"path": "table.csv", "labels": "label", "input": "x"})
    )
    assert artifact.meta["examples"] == {"train": 12, "validation": 4, "test": 4}


@pytest.mark.parametrize("path", ["../table.csv", "ABSOLUTE", "linked/table.csv", ".."])
def test_a_path_can_not_leave_the_project(path: str, steps: Steps) -> None:
    outside = table(steps.folder)
    (steps.extensions.root / "linked").symlink_to(steps.folder)
    path = path.replace("ABSOLUTE", str(outside))
    with pytest.raises(DeploycheckError, match="is outside of the project") as raised:
        steps.make("data", data_settings(**CSV, arguments={"path": path, "labels": "label"}))
    assert path in raised.value.what


def test_a_loader_of_the_users_is_given_the_whole_path(steps: Steps) -> None:
    settings = data_settings(load="tests.steps.users:by_path", arguments={"path": "table.csv"})
    with pytest.raises(ValueError, match=f"given PosixPath {steps.extensions.root}/table.csv"):
        steps.make("data", settings)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            {"load": "tests.steps.users:doubles"},
            "the loader gives 'x' as float64 [4], the model declares float32 [4]",
        ),
        (
            {"input": {"x": Input(shape=(5,), dtype="float32")}},
            "the loader gives 'x' as float32 [4], the model declares float32 [5]",
        ),
        (
            {"input": {"image": Input(shape=(4,), dtype="float32"), "x": Input(shape=(4,), dtype="float32")}},
            "the loader returned one array of inputs, the model has 2: image, x",
        ),
        (
            {"load": "tests.steps.users:one_class"},
            "every label of the training split is 2: there is nothing to learn",
        ),
        ({"arguments": {"rows": 3}}, "no examples are left for validation, test, of 3"),
    ],
)
def test_examples_that_the_model_can_not_use_are_refused(changed: dict[str, Any], says: str, steps: Steps) -> None:
    with pytest.raises(DeploycheckError) as raised:
        steps.make("data", data_settings(**changed))
    assert raised.value.what == says


def test_a_constant_feature_is_remarked(steps: Steps) -> None:
    settings = data_settings(load="tests.steps.users:with_a_constant", preprocess=(("standardize", {}),))
    assert steps.make("data", settings).meta["remarks"] == [
        "constant in the training split, so standardize does not scale it: x[2]"
    ]
