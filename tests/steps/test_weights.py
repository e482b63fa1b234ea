from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.language.spec import Weights
from deploycheck.stages import data as stored
from deploycheck.steps import trained as files
from deploycheck.steps.weights import WeightsSettings
from deploycheck.store import Artifact, write_manifest
from tests.planning import built_in
from tests.steps.making import INPUT, PREPROCESS, Steps, training_settings

ARRAYS = {"hidden": np.full((4, 8), 0.5, np.float32), "out": np.ones((8, 3), np.float32)}


@pytest.fixture
def project(tmp_path: Path) -> Steps:
    (tmp_path / "project").mkdir()
    np.savez(tmp_path / "project" / "w.npz", **ARRAYS)
    return Steps(tmp_path, built_in(tmp_path / "project"))


def settings(**changed: Any) -> WeightsSettings:
    weights = Weights.model_validate({"load": "npz", "path": "w.npz", **changed})
    return WeightsSettings(
        build="tests.steps.users:build",
        arguments={"width": 8},
        input=INPUT,
        task="classification",
        preprocess=PREPROCESS,
        seed=0,
        weights=weights,
    )


def test_the_artifact_is_the_model_with_the_weights_of_the_file(project: Steps, data: Artifact, tmp_path: Path) -> None:
    artifact = project.make("weights", settings(), data=data)
    model = files.read(artifact, project.extensions).model
    np.testing.assert_array_equal(model.weights["params/hidden"], ARRAYS["hidden"])
    np.testing.assert_array_equal(model.weights["params/out"], ARRAYS["out"])
    digest = hashlib.sha256((tmp_path / "project" / "w.npz").read_bytes()).hexdigest()
    assert artifact.meta["sha256"] == digest
    assert artifact.meta["remarks"] == [f"weights of w.npz, sha256:{digest[:12]}"]


def test_a_training_is_given_the_weights_to_start_from(project: Steps, data: Artifact) -> None:
    start = project.make("weights", settings(), data=data)
    still = training_settings().train.model_copy(update={"optimizer": {"sgd": {"learning_rate": 0.0}}, "epochs": 1})
    artifact = project.make("training", training_settings(train=still), "training", data=data, start=start)
    model = files.read(artifact, project.extensions).model
    np.testing.assert_array_equal(model.weights["params/out"], ARRAYS["out"])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"sha256": "0" * 64}, "its sha256 is .*, the spec has 0000"),
        ({"path": "../w.npz"}, "outside of the project"),
        ({"path": "none.npz"}, "its weights can't be read"),
        ({"load": "safetensors"}, "its weights can't be read"),
        ({"load": "tests.steps.users:CLASSES"}, "expected a function"),
        ({"names": {"hidden": "none"}}, "`names` has none, which the file has not"),
    ],
)
def test_what_is_wrong_with_the_weights_is_said(
    project: Steps, data: Artifact, changed: dict[str, Any], says: str
) -> None:
    with pytest.raises(DeploycheckError, match=says):
        project.make("weights", settings(**changed), data=data)


def test_a_label_that_the_model_has_no_logit_for_is_refused(project: Steps, data: Artifact, tmp_path: Path) -> None:
    dataset = stored.read(data.path)
    test = dataset.splits["test"]
    beyond = replace(test, labels=np.where(np.arange(len(test)) == 5, 3, test.labels))
    (tmp_path / "other").mkdir()
    stored.write(replace(dataset, splits={**dataset.splits, "test": beyond}), tmp_path / "other")
    other = write_manifest(tmp_path / "other", "data", "0" * 64, data.meta)
    with pytest.raises(DeploycheckError, match=r"^labels of the test split: .*the labels go up to 3, in row 5"):
        project.make("weights", settings(), data=other)
