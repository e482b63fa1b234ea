from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.stages.examples import Examples
from deploycheck.stages.model import Model, build_model
from deploycheck.stages.train import Recipe, Run, best_run, optimizer, train
from tests.stages.conftest import BUILDERS

RECIPE = Recipe("adam", {"learning_rate": 1e-2}, epochs=6, batch_size=32, schedule="cosine", warmup=0.1)


def parts(stripes: tuple[np.ndarray, np.ndarray]) -> dict[str, Examples]:
    images, labels = stripes
    return {
        "train": Examples({"image": images[:200]}, labels[:200]),
        "validation": Examples({"image": images[200:]}, labels[200:]),
    }


def plain(seed: int) -> Model:
    return build_model(BUILDERS["function"], {}, {"image": np.zeros((1, 6, 6, 1))}, seed, where="model")


def leaves(run: Run) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves((run.params, run.state))]


def test_every_form_learns(
    builder: Callable[[int], Model], stripes: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    (run,) = train(builder, parts(stripes), RECIPE, (0,), tmp_path, lambda _: None, "train")
    assert run.report.epochs[-1].loss < run.report.epochs[0].loss / 2
    assert run.report.validation.validation_accuracy > 0.9


def one_number(seed: int) -> Model:
    def build(key: jax.Array) -> tuple[dict[str, jax.Array], Callable[..., jax.Array]]:
        return {"kernel": jnp.zeros((36, 1))}, lambda params, image: image.reshape(-1, 36) @ params["kernel"]

    return build_model(build, {}, {"image": np.zeros((1, 6, 6, 1))}, seed, where="model")


def test_numbers_are_learned_by_squared_error(stripes: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    images = stripes[0]
    weights = np.random.default_rng(0).normal(size=36).astype(np.float32)
    examples = parts((images, images.reshape(-1, 36) @ weights))
    recipe = replace(RECIPE, loss="squared_error", epochs=60, watch="validation.loss", patience=60)
    lines: list[str] = []
    (run,) = train(one_number, examples, recipe, (0,), tmp_path, lines.append, "train")
    spread = float(examples["validation"].labels.var())
    assert run.report.validation.validation_loss < 0.05 * spread
    assert run.report.validation.validation_accuracy is None
    assert "validation loss" in lines[-1]


def test_a_model_with_an_output_too_many_for_a_number_is_refused(
    stripes: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    examples = parts((stripes[0], stripes[1].astype(np.float32)))
    with pytest.raises(DeploycheckError, match=r"\[2, 3\], expected a number for each: \[2, 1\]"):
        train(plain, examples, replace(RECIPE, loss="squared_error"), (0,), tmp_path, lambda _: None, "train")


def test_labels_that_say_nothing_teach_nothing(stripes: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    shuffled = parts((stripes[0], np.random.default_rng(1).permutation(stripes[1])))
    (run,) = train(plain, shuffled, replace(RECIPE, epochs=3), (0,), tmp_path, lambda _: None, "train")
    assert run.report.validation.validation_accuracy < 0.6


def test_one_line_of_progress_an_epoch(stripes: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    lines: list[str] = []
    train(plain, parts(stripes), RECIPE, (0, 1), tmp_path, lines.append, "train")
    assert len(lines) == 12
    assert lines[0].startswith("train: seed 0 (1 of 2): epoch 1/6, loss ")
    assert lines[-1].endswith("0 s left")


def test_a_second_call_trains_nothing_again(stripes: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    (first,) = train(plain, parts(stripes), RECIPE, (0,), tmp_path, lambda _: None, "train")
    lines: list[str] = []
    (second,) = train(plain, parts(stripes), RECIPE, (0,), tmp_path, lines.append, "train")
    assert lines == []
    for one, other in zip(leaves(first), leaves(second), strict=True):
        np.testing.assert_array_equal(one, other)


def _killed_after(epochs: int, scratch: str, images: np.ndarray, labels: np.ndarray) -> None:
    def report(line: str) -> None:
        if f"epoch {epochs}/" in line:
            os.kill(os.getpid(), signal.SIGKILL)

    train(plain, parts((images, labels)), RECIPE, (0,), Path(scratch), report, "train")


def test_a_killed_run_resumes_and_ends_where_an_undisturbed_one_does(
    stripes: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    child = multiprocessing.get_context("spawn").Process(
        target=_killed_after, args=(4, str(tmp_path / "killed"), *stripes)
    )
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    lines: list[str] = []
    (resumed,) = train(plain, parts(stripes), RECIPE, (0,), tmp_path / "killed", lines.append, "train")
    (whole,) = train(plain, parts(stripes), RECIPE, (0,), tmp_path / "whole", lambda _: None, "train")
    assert "resumed after epoch" in lines[0]
    assert not any("epoch 1/" in line for line in lines)
    assert resumed.report.epochs == whole.report.epochs
    for one, other in zip(leaves(resumed), leaves(whole), strict=True):
        np.testing.assert_array_equal(one, other)


def test_patience_ends_a_run_and_its_best_epoch_is_kept(stripes: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    recipe = replace(RECIPE, options={"learning_rate": 0.3}, schedule="constant", warmup=0.0, epochs=60)
    recipe = replace(recipe, watch="validation.loss", patience=2)
    (run,) = train(plain, parts(stripes), recipe, (0,), tmp_path, lambda _: None, "train")
    assert len(run.report.epochs) < 60
    assert run.report.kept == len(run.report.epochs) - 1 - 2
    assert run.report.validation.validation_loss == min(epoch.validation_loss for epoch in run.report.epochs)


def test_the_deployed_seed_is_the_best_on_validation(stripes: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    runs = train(plain, parts(stripes), replace(RECIPE, epochs=2), (0, 1, 2), tmp_path, lambda _: None, "train")
    best = best_run(runs)
    assert best.report.validation.validation_accuracy == max(run.report.validation.validation_accuracy for run in runs)


def test_regularisation_shrinks_kernels(stripes: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    def norm(recipe: Recipe, name: str) -> float:
        (run,) = train(plain, parts(stripes), recipe, (0,), tmp_path / name, lambda _: None, "train")
        return sum(float(np.abs(leaf).sum()) for leaf in leaves(run) if leaf.ndim > 1)

    free = norm(RECIPE, "free")
    assert norm(replace(RECIPE, l2=0.01), "l2") < 0.9 * free
    assert norm(replace(RECIPE, l1=0.01), "l1") < 0.9 * free


def test_a_loss_that_is_no_number_stops_with_its_epoch(stripes: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    broken = parts((np.where(stripes[0] > 2, np.nan, stripes[0]), stripes[1]))
    with pytest.raises(DeploycheckError, match=r"seed 0: the training loss is nan in epoch 1"):
        train(plain, broken, RECIPE, (0,), tmp_path, lambda _: None, "train")


@pytest.mark.parametrize(("schedule", "last"), [("cosine", 0.0), ("linear", 0.0), ("constant", 0.1)])
def test_a_schedule_warms_up_to_the_peak_and_ends_as_named(schedule: str, last: float) -> None:
    recipe = Recipe("sgd", {"learning_rate": 0.1}, 1, 1, schedule=schedule, warmup=0.2)
    transform = optimizer(recipe, 100, "train")
    state = transform.init(np.zeros((), np.float32))
    rates = []
    for _ in range(101):
        update, state = transform.update(np.ones((), np.float32), state)
        rates.append(-float(optax.tree.sum(update)))
    assert rates[0] == 0
    assert max(rates) == pytest.approx(0.1)
    assert rates[100] == pytest.approx(last, abs=1e-6)


def test_an_optimiser_that_optax_refuses_is_named() -> None:
    with pytest.raises(DeploycheckError, match=r"train.optimizer: optax can't make the optimiser adam"):
        optimizer(Recipe("adam", {"learning_rat": 1}, 1, 1), 10, "train.optimizer")
