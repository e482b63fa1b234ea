"""A search over trainings of a small model."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.language.optimize import Optimize
from deploycheck.stages import data as stored
from deploycheck.stages import trials
from deploycheck.stages.train import Job, train
from deploycheck.steps import STEP_KINDS
from deploycheck.steps import trained as files
from deploycheck.steps.search import SearchSettings
from deploycheck.steps.training import overlaid
from deploycheck.steps.variant import VariantSettings
from deploycheck.store import Artifact, open_artifact, write_manifest
from tests.stages.killing import run_until_killed
from tests.steps.making import TRAIN, USES, Steps, training_settings
from tests.steps.users import TRAINS

SPACE = {
    "train.optimizer.adam.learning_rate": {"log": [1e-4, 0.5]},
    "model.with.width": {"choice": [2, 8, 16]},
    "train.epochs": {"integers": [2, 3]},
}


def search_settings(space: Any = SPACE, **changed: Any) -> SearchSettings:
    search = {"trials": 3, "minimize": "validation.loss", **changed}
    optimize = Optimize.model_validate({"search": search, "space": space})
    return SearchSettings(**dict(training_settings()), optimize=optimize)


def best(artifact: Artifact) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(artifact.file(trials.BEST).read_text())
    return found


def tried(artifact: Artifact) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(artifact.file(trials.TRIALS).read_text())
    return found


@pytest.fixture(scope="session")
def searched(chain: Steps, data: Artifact) -> Artifact:
    return chain.make("search", search_settings(), data=data)


def test_the_best_trial_on_validation_is_found(searched: Artifact) -> None:
    losses = [trial["values"] for trial in tried(searched)]
    assert len(losses) == 3
    assert best(searched)["values"] == {"validation.loss": min(losses)[0]}
    assert best(searched)["settings"] in [trial["settings"] for trial in tried(searched)]
    (*_, last) = searched.meta["remarks"]
    assert last.startswith("train.epochs = ")
    assert ", was 3 (validation.loss " in last
    assert ", was 0.05" in searched.meta["remarks"][0]
    assert last.endswith("best of 3 trials)")


def test_the_training_after_it_uses_what_was_found(searched: Artifact, data: Artifact, chain: Steps) -> None:
    settings = training_settings(train=TRAIN.model_copy(update={"seeds": (0, 1)}))
    artifact = chain.make("training", settings, "training after a search", data=data, search=searched)
    found = best(searched)
    config = files.read(artifact, chain.extensions).config
    assert config.arguments == {"width": found["settings"]["model.with.width"]}
    report = STEP_KINDS["training"].subjects["training"].read(artifact, None)
    first = report.seeds[0]
    assert len(first.epochs) == found["settings"]["train.epochs"]
    assert first.kept_epoch.validation_loss == pytest.approx(found["values"]["validation.loss"], rel=1e-6)


def test_a_method_that_trains_uses_what_was_found(
    searched: Artifact, data: Artifact, trained: Artifact, chain: Steps
) -> None:
    settings = VariantSettings(variant="v", method="tests.steps.users:TRAINS", options={}, train=TRAIN, uses=USES)
    chain.make("variant", settings, "variant after a search", weights=trained, data=data, search=searched)
    (_, trainer) = TRAINS.given[-1]
    assert trainer is not None
    found = best(searched)["settings"]
    assert trainer.recipe.options == {"learning_rate": found["train.optimizer.adam.learning_rate"]}
    assert trainer.recipe.epochs == found["train.epochs"]


def changed_test_split(data: Artifact, folder: Path) -> Artifact:
    """Return the data with other test examples."""
    dataset = stored.read(data.path)
    test = dataset.splits["test"]
    other = replace(test, labels=(test.labels + 1) % 3, inputs={"x": test.inputs["x"] * np.float32(-3)})
    stored.write(replace(dataset, splits={**dataset.splits, "test": other}), folder)
    return write_manifest(folder, "data", "0" * 64, data.meta)


def test_the_test_split_is_never_seen(searched: Artifact, data: Artifact, chain: Steps, tmp_path: Path) -> None:
    other = changed_test_split(data, tmp_path / "other") if (tmp_path / "other").mkdir() is None else data
    assert other.digest != data.digest
    same = chain.make("search", search_settings(), "search with another test split", data=other)
    assert same.digest == searched.digest

    shutil.copytree(data.path, tmp_path / "none")
    (tmp_path / "none" / "test.safetensors").unlink()
    without = replace(data, path=tmp_path / "none")
    same = chain.make("search", search_settings(), "search without a test split", data=without)
    assert same.digest == searched.digest


def test_a_search_is_given_no_test_split(data: Artifact, monkeypatch: pytest.MonkeyPatch, chain: Steps) -> None:
    given = []

    def watched(build: Any, job: Job, *rest: Any) -> Any:
        given.append({*job.examples, *job.labels})
        return train(build, job, *rest)

    monkeypatch.setattr("deploycheck.stages.train.train", watched)
    chain.make("search", search_settings(trials=1), "watched search", data=data)
    assert given == [{"train", "validation"}]
    dataset = stored.read(data.path, ("train", "validation"))
    with pytest.raises(KeyError, match="test"):
        _ = dataset.splits["test"]


def killed_in_trial_two(folder: Path, data: Path) -> None:
    def say(line: str) -> None:
        if "trial 2/3: " in line and "epoch 2/" in line:
            os.kill(os.getpid(), signal.SIGKILL)

    steps = Steps(folder)
    making = steps.making(search_settings(), "search", data=open_artifact(data))
    STEP_KINDS["search"].make(replace(making, progress=say))


def test_a_search_that_was_killed_in_a_training_goes_on_there(
    searched: Artifact, data: Artifact, tmp_path: Path
) -> None:
    run_until_killed(killed_in_trial_two, tmp_path, data.path)
    assert (tmp_path / "search scratch" / "trial-0.json").exists()
    lines: list[str] = []
    steps = Steps(tmp_path)
    (tmp_path / "again").mkdir()
    making = replace(
        steps.making(search_settings(), "resumed", data=data),
        scratch=tmp_path / "search scratch",
        progress=lines.append,
    )
    STEP_KINDS["search"].make(making)
    assert lines[0] == "optimize: trial 1/3: was done before"
    assert lines[1].startswith("optimize: trial 2/3: train: seed 0 (1 of 1): resumed after epoch")
    for name in (trials.BEST, trials.TRIALS):
        assert (making.out / name).read_bytes() == searched.file(name).read_bytes()


def test_each_training_starts_from_the_weights_that_the_spec_names(
    data: Artifact, trained: Artifact, chain: Steps
) -> None:
    space = {"train.optimizer.adam.learning_rate": {"log": [1e-9, 1e-8]}}
    settings = search_settings(space, trials=1)
    started = chain.make("search", settings, "search from weights", data=data, start=trained)
    reached = STEP_KINDS["training"].subjects["training"].read(trained, None).deployed.kept_epoch.validation_loss
    assert best(started)["values"]["validation.loss"] == pytest.approx(reached, rel=1e-4)


def test_a_training_that_diverges_is_a_trial_that_is_not_taken(data: Artifact, chain: Steps) -> None:
    space = {"train.optimizer": {"choice": [{"sgd": {"learning_rate": 1e-3}}, {"sgd": {"learning_rate": 1e3}}]}}
    settings = search_settings(space, trials=4, sampler="random", seed=1)
    found = chain.make("search", settings, "diverging search", data=data)
    assert {trial["ended"] for trial in tried(found)} == {"complete", "diverged"}
    assert best(found)["settings"]["train.optimizer"] == {"sgd": {"learning_rate": 1e-3}}
    assert "diverged" in found.meta["remarks"][-1]


def test_an_error_says_in_which_trial_it_came(data: Artifact, chain: Steps) -> None:
    settings = search_settings({"model.with.width": {"choice": ["a", "b"]}}, trials=1)
    with pytest.raises(TypeError) as raised:  # of the user's code
        chain.make("search", settings, "broken search", data=data)
    assert raised.value.__notes__ == ["in trial 1 (model.with.width=b)"]

    rates = {"train.optimizer": {"choice": [{"sgd": {"learning_rate": 0.1, "momentum": "much"}}, {"sgd": {}}]}}
    with pytest.raises(DeploycheckError, match=r"^trial 1 \(train\.optimizer=.*\): optax can't make the optimiser sgd"):
        chain.make("search", search_settings(rates, trials=1), "search for an optimiser", data=data)


def test_a_hopeless_trial_is_stopped_before_its_last_epoch(data: Artifact, chain: Steps) -> None:
    rates = {"train.optimizer.adam.learning_rate": {"choice": [1e-6, 0.05, 0.06, 0.07]}}
    settings = search_settings(rates, trials=12, stop_hopeless=True, sampler="random")
    found = tried(chain.make("search", settings, "hopeless search", data=data))
    stopped = [trial for trial in found if trial["ended"] == "stopped"]
    assert stopped
    assert all(len(trial["reports"]) <= 3 for trial in stopped)
    assert all(len(trial["reports"]) == 3 for trial in found if trial["ended"] == "complete")


def test_the_number_of_parameters_is_an_objective(data: Artifact, chain: Steps) -> None:
    asked = {"maximize": "validation.accuracy", "minimize": "parameters", "tolerance": "100 %", "sampler": "random"}
    settings = search_settings({"model.with.width": {"choice": [2, 8]}}, trials=4, **asked)
    found = chain.make("search", settings, "small search", data=data)
    assert {trial["values"][1] for trial in tried(found)} == {2.0 * 7, 8.0 * 7}
    assert best(found)["settings"] == {"model.with.width": 2}


def test_what_is_laid_over_a_training_is_read_as_if_the_spec_had_it() -> None:
    found = {"train.schedule": {"cosine": {"warmup": "5 %"}}, "train.regularize.l2": 0.5, "model.with.width": 3}
    settings = overlaid(training_settings(), found)
    assert settings.train.schedule["cosine"].warmup == 0.05
    assert settings.train.regularize.l2 == 0.5
    assert settings.arguments == {"width": 3}
    assert training_settings().arguments == {"width": 8}
