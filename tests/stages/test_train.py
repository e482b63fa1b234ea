from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.stages.examples import Examples
from deploycheck.stages.model import Model, build_model
from deploycheck.stages.recipe import Recipe, rates_of
from deploycheck.stages.tasks.classification import CLASSIFICATION, Classification
from deploycheck.stages.tasks.regression import REGRESSION
from deploycheck.stages.train import Job, Run, best_run, compile_epoch, fit, report_of, train, transform_of
from deploycheck.stages.training import Epoch, SeedReport
from tests.stages.killing import kill_at, run_until_killed
from tests.stages.networks import IMAGE, plain

RECIPE = Recipe(
    optimizer="adam", options={"learning_rate": 1e-2}, epochs=6, batch_size=32, schedule="cosine", warmup=0.1
)

Splits = Mapping[str, Examples]


def classify(examples: Splits, recipe: Recipe = RECIPE) -> Job:
    return Job(examples=examples, task=CLASSIFICATION, recipe=recipe, loss=CLASSIFICATION.losses["cross_entropy"])


def regress(examples: Splits, recipe: Recipe = RECIPE) -> Job:
    recipe = replace(recipe, loss="squared_error")
    return Job(examples=examples, task=REGRESSION, recipe=recipe, loss=REGRESSION.losses["squared_error"])


def relabelled(examples: Splits, label: Callable[[Examples], np.ndarray]) -> dict[str, Examples]:
    return {name: Examples(part.inputs, label(part)) for name, part in examples.items()}


def quiet(line: str) -> None:
    """Show no progress."""


def leaves(run: Run) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves((run.params, run.state))]


def assert_same_weights(one: Run, other: Run) -> None:
    for first, second in zip(leaves(one), leaves(other), strict=True):
        np.testing.assert_array_equal(first, second)


def test_every_form_learns(builder: Callable[[int], Model], examples: Splits, tmp_path: Path) -> None:
    (run,) = train(builder, classify(examples), (0,), tmp_path, quiet)
    assert run.report.epochs[-1].loss < run.report.epochs[0].loss / 2
    assert run.report.kept_epoch.scores["accuracy"] > 0.9


def one_number(seed: int) -> Model:
    def build() -> tuple[dict[str, jax.Array], Callable[..., jax.Array]]:
        return {"kernel": jnp.zeros((36, 1))}, lambda params, image: image.reshape(-1, 36) @ params["kernel"]

    return build_model(build, {}, IMAGE, seed=seed, outputs=REGRESSION.outputs)


def test_numbers_are_learned_by_squared_error(examples: Splits, tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=36).astype(np.float32)
    numbers = relabelled(examples, lambda part: part.inputs["image"].reshape(-1, 36) @ weights)
    recipe = replace(RECIPE, epochs=60, watch="validation.loss", patience=60)
    lines: list[str] = []
    (run,) = train(one_number, regress(numbers, recipe), (0,), tmp_path, lines.append)
    assert run.report.kept_epoch.validation_loss < 0.05 * float(numbers["validation"].labels.var())
    assert run.report.kept_epoch.scores == {}
    assert "validation loss" in lines[-1]


def test_a_model_whose_outputs_do_not_fit_the_task_is_refused_before_it_is_trained(
    examples: Splits, tmp_path: Path
) -> None:
    lines: list[str] = []
    four = relabelled(examples, lambda part: np.arange(len(part)) % 4)
    with pytest.raises(DeploycheckError, match=re.escape("the model gives [2, 3], expected logits [2, 4] or more")):
        train(plain, classify(four), (0,), tmp_path, lines.append)
    numbers = relabelled(examples, lambda part: part.labels.astype(np.float32))
    with pytest.raises(DeploycheckError, match="the model gives logits, expected prediction alone"):
        train(plain, regress(numbers), (0,), tmp_path, lines.append)
    assert lines == []


def with_label(part: Examples, row: int, label: int) -> Examples:
    labels = part.labels.copy()
    labels[row] = label
    return replace(part, labels=labels)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_label_beyond_the_logits_is_refused_in_any_split(split: str, examples: Splits, tmp_path: Path) -> None:
    test = examples["validation"]
    splits = {**examples, "test": test}
    splits[split] = with_label(splits[split], 7, 3)
    job = classify({name: splits[name] for name in ("train", "validation")})
    with pytest.raises(DeploycheckError, match="the labels go up to 3, in row 7") as caught:
        train(plain, replace(job, labels={"test": splits["test"].labels}), (0,), tmp_path, quiet)
    assert caught.value.where == f"labels of the {split} split"


def test_a_validation_loss_that_is_not_finite_ends_the_training(examples: Splits, tmp_path: Path) -> None:
    inputs = {"image": examples["validation"].inputs["image"].copy()}
    inputs["image"][3] = np.nan
    holed = {**examples, "validation": replace(examples["validation"], inputs=inputs)}
    watching = replace(RECIPE, watch="validation.loss", patience=2)
    with pytest.raises(DeploycheckError, match="seed 4: the validation loss is nan in epoch 1"):
        train(plain, classify(holed, watching), (4,), tmp_path, quiet)


class Scored(Classification):
    """A task whose score is not a number from the first epoch on."""

    def scores(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> Mapping[str, float]:
        return {"accuracy": math.nan}


def test_a_score_that_is_not_finite_ends_the_training(examples: Splits, tmp_path: Path) -> None:
    with pytest.raises(DeploycheckError, match="seed 0: the validation accuracy is nan in epoch 1"):
        train(plain, replace(classify(examples), task=Scored()), (0,), tmp_path, quiet)


def test_labels_that_say_nothing_teach_nothing(examples: Splits, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    shuffled = relabelled(examples, lambda part: random.permutation(part.labels))
    (run,) = train(plain, classify(shuffled, replace(RECIPE, epochs=3)), (0,), tmp_path, quiet)
    assert run.report.kept_epoch.scores["accuracy"] < 0.6


def test_what_an_epoch_computes_is_lowered(examples: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is lowered has equal results, so nothing else would tell."""
    used: list[str] = []

    def marked(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given: used.append("lowered") or function(*given)

    monkeypatch.setattr("deploycheck.stages.train.lowered", marked)
    train(plain, classify(examples, replace(RECIPE, epochs=1)), (0,), tmp_path, quiet)
    assert used


def test_an_epoch_takes_the_memory_that_it_is_given_and_the_model_keeps_its_weights(
    examples: Splits, tmp_path: Path
) -> None:
    model, job = plain(0), classify(examples, replace(RECIPE, epochs=2))
    before = jax.tree.map(np.array, model.params)
    fit(model, job, 0, tmp_path, quiet)
    jax.tree.map(np.testing.assert_array_equal, model.params, before)
    carry = (model.params, model.state, transform_of(job, job.recipe).init(model.params))
    part = examples["train"]
    compile_epoch(model, job)(carry, dict(part.inputs), part.labels, jax.random.key(0), rates_of(job.recipe))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(model.params))


def test_progress_is_one_line_per_epoch(examples: Splits, tmp_path: Path) -> None:
    lines: list[str] = []
    train(plain, classify(examples), (0, 1), tmp_path, lines.append)
    assert len(lines) == 12
    assert lines[0].startswith("train: seed 0 (1 of 2): epoch 1/6, loss ")
    assert "validation accuracy" in lines[0]
    assert lines[6].startswith("train: seed 1 (2 of 2): epoch 1/6, loss ")
    assert lines[-1].endswith("0 s left")


def test_a_second_call_trains_nothing_again(examples: Splits, tmp_path: Path) -> None:
    (first,) = train(plain, classify(examples), (0,), tmp_path, quiet)
    lines: list[str] = []
    (second,) = train(plain, classify(examples), (0,), tmp_path, lines.append)
    assert lines == []
    assert second.report == first.report
    assert_same_weights(first, second)


def test_seeds_give_different_runs_and_one_seed_the_same(examples: Splits, tmp_path: Path) -> None:
    job = classify(examples, replace(RECIPE, epochs=1))
    one, other = train(plain, job, (0, 1), tmp_path / "both", quiet)
    (again,) = train(plain, job, (1,), tmp_path / "again", quiet)
    assert one.report.epochs != other.report.epochs
    assert other.report.epochs == again.report.epochs
    assert_same_weights(other, again)


def train_until_killed(epoch: int, scratch: Path, examples: Splits) -> None:
    train(plain, classify(examples), (0,), scratch, kill_at(epoch))


def test_a_killed_run_resumes_and_ends_where_an_undisturbed_one_does(examples: Splits, tmp_path: Path) -> None:
    run_until_killed(train_until_killed, 4, tmp_path / "killed", examples)
    lines: list[str] = []
    (resumed,) = train(plain, classify(examples), (0,), tmp_path / "killed", lines.append)
    (whole,) = train(plain, classify(examples), (0,), tmp_path / "whole", quiet)
    assert "resumed after epoch" in lines[0]
    assert not any("epoch 1/" in line for line in lines)
    assert resumed.report == whole.report
    assert_same_weights(resumed, whole)


def test_patience_ends_a_run_and_its_best_epoch_is_kept(examples: Splits, tmp_path: Path) -> None:
    recipe = replace(RECIPE, options={"learning_rate": 0.3}, schedule="constant", warmup=0.0, epochs=60)
    recipe = replace(recipe, watch="validation.loss", patience=2)
    (run,) = train(plain, classify(examples, recipe), (0,), tmp_path, quiet)
    epochs = run.report.epochs
    assert len(epochs) < 60
    assert run.report.kept == len(epochs) - 1 - 2
    assert run.report.kept_epoch.validation_loss == min(epoch.validation_loss for epoch in epochs)
    logits = plain(0).apply(run.params, run.state, examples["validation"].inputs)
    losses = CLASSIFICATION.losses["cross_entropy"](logits, jnp.asarray(examples["validation"].labels))
    assert float(losses.mean()) == pytest.approx(run.report.kept_epoch.validation_loss, rel=1e-4)


def test_a_score_can_be_watched(examples: Splits, tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=30, watch="validation.accuracy", patience=1)
    (run,) = train(plain, classify(examples, recipe), (0,), tmp_path, quiet)
    accuracies = [epoch.scores["accuracy"] for epoch in run.report.epochs]
    assert len(accuracies) < 30
    assert run.report.kept == accuracies.index(max(accuracies))


def run_with(seed: int, *epochs: Epoch, kept: int = 0) -> Run:
    return Run(SeedReport(seed, epochs, kept), {}, {})


def test_the_deployed_seed_is_the_best_on_validation() -> None:
    runs = (
        run_with(3, Epoch(0.1, 0.5, {"accuracy": 0.8}), Epoch(0.1, 0.1, {"accuracy": 0.99}), kept=0),
        run_with(5, Epoch(0.9, 0.7, {"accuracy": 0.9})),
        run_with(8, Epoch(0.9, 0.6, {"accuracy": 0.9})),
    )
    assert best_run(runs) is runs[2]
    assert report_of(runs).deployed is runs[2].report


def test_regularisation_shrinks_kernels(examples: Splits, tmp_path: Path) -> None:
    def norm(recipe: Recipe, name: str) -> float:
        (run,) = train(plain, classify(examples, recipe), (0,), tmp_path / name, quiet)
        return sum(float(np.abs(leaf).sum()) for leaf in leaves(run) if leaf.ndim > 1)

    free = norm(RECIPE, "free")
    assert norm(replace(RECIPE, l2=0.01), "l2") < 0.9 * free
    assert norm(replace(RECIPE, l1=0.01), "l1") < 0.9 * free


def test_a_loss_that_is_not_finite_stops_with_its_epoch(examples: Splits, tmp_path: Path) -> None:
    def broken(part: Examples) -> Examples:
        image = part.inputs["image"]
        return Examples({"image": np.where(image > 2, np.nan, image)}, part.labels)

    job = classify({name: broken(part) for name, part in examples.items()})
    with pytest.raises(DeploycheckError, match=r"seed 0: the training loss is nan in epoch 1"):
        train(plain, job, (0,), tmp_path, quiet)


def test_a_batch_larger_than_the_training_split_is_the_whole_split(examples: Splits, tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=1, batch_size=10_000)
    (run,) = train(plain, classify(examples, recipe), (0,), tmp_path, quiet)
    model = plain(0)
    part = examples["train"]
    outputs: Any = model.apply(model.params, model.state, part.inputs)
    loss = CLASSIFICATION.losses["cross_entropy"](outputs, jnp.asarray(part.labels)).mean()
    assert run.report.epochs[0].loss == pytest.approx(float(loss), rel=1e-5)
