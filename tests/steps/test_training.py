from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.stages import data as stored
from deploycheck.steps import STEP_KINDS
from deploycheck.steps import trained as files
from deploycheck.store import Artifact, write_manifest
from tests.steps.making import INPUT, PREPROCESS, Steps, training_settings


def test_the_artifact_is_a_model_that_can_be_put_together_again(trained: Artifact, chain: Steps) -> None:
    model = files.read(trained, chain.extensions)
    assert model.config == files.Config(
        build="tests.steps.users:build",
        arguments={"width": 8},
        input=INPUT,
        task="classification",
        seed=0,
        preprocess=PREPROCESS,
    )
    assert {name: array.shape for name, array in model.model.weights.items()} == {
        "params/hidden": (4, 8),
        "params/out": (8, 3),
    }
    assert model.fitted["preprocess/0.scale/by"] == np.float32(0.5)


def test_every_epoch_of_every_seed_is_reported(trained: Artifact) -> None:
    report = STEP_KINDS["training"].subjects["training"].read(trained, "trained")
    assert [seed.seed for seed in report.seeds] == [0]
    assert len(report.seeds[0].epochs) == 3
    assert trained.meta["deployed"] == report.spread


def test_the_best_seed_on_validation_is_kept(data: Artifact, chain: Steps) -> None:
    section = training_settings().train.model_copy(update={"seeds": (3, 4), "epochs": 1})
    artifact = chain.make("training", training_settings(train=section), "two seeds", data=data)
    report = STEP_KINDS["training"].subjects["training"].read(artifact, None)
    assert [seed.seed for seed in report.seeds] == [3, 4]
    best = max(report.seeds, key=lambda seed: seed.kept_epoch.merit)
    assert report.deployed_seed == best.seed
    alone = section.model_copy(update={"seeds": (best.seed,)})
    same = chain.make("training", training_settings(train=alone), "the best seed", data=data)
    weights = [files.read(each, chain.extensions).model.weights for each in (artifact, same)]
    np.testing.assert_allclose(weights[0]["params/out"], weights[1]["params/out"], rtol=1e-5)


def test_a_test_label_that_the_model_has_no_logit_for_is_refused(data: Artifact, chain: Steps, tmp_path: Path) -> None:
    dataset = stored.read(data.path)
    test = dataset.splits["test"]
    beyond = replace(test, labels=np.where(np.arange(len(test)) == 5, 3, test.labels))
    stored.write(replace(dataset, splits={**dataset.splits, "test": beyond}), tmp_path)
    other = write_manifest(tmp_path, "data", "0" * 64, data.meta)
    with pytest.raises(DeploycheckError, match=r"^labels of the test split: .*the labels go up to 3, in row 5"):
        chain.make("training", training_settings(), "beyond", data=other)
