from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.stages.examples import Examples
from deploycheck.stages.methods.quantize import QuantizeOptions
from deploycheck.stages.model import Model
from deploycheck.stages.quantization import quantize_weights
from deploycheck.stages.recipe import Recipe
from deploycheck.stages.tasks.classification import CLASSIFICATION
from deploycheck.stages.tasks.regression import REGRESSION
from tests.stages.killing import kill_at, run_until_killed
from tests.stages.networks import from_function, plain
from tests.stages.trainers import RECIPE, Splits, trainer_for

STILL = Recipe(optimizer="sgd", options={"learning_rate": 0.0}, epochs=2, batch_size=32)


def assert_same_weights(one: Model, other: Model) -> None:
    assert one.weights.keys() == other.weights.keys()
    for name, array in one.weights.items():
        np.testing.assert_array_equal(array, other.weights[name])


def accuracy(model: Model, part: Examples) -> float:
    outputs = model.apply(model.params, model.state, part.inputs)
    return CLASSIFICATION.scores({name: np.asarray(array) for name, array in outputs.items()}, part.labels)["accuracy"]


def test_fit_starts_from_the_weights_that_it_is_given(
    builder: Callable[[int], Model], examples: Splits, tmp_path: Path
) -> None:
    model = builder(3)
    params = jax.tree.map(lambda leaf: leaf + 0.25, model.params)
    fitted = trainer_for(examples, tmp_path, STILL).fit(replace(model, params=params))
    assert_same_weights(replace(fitted, state=model.state), replace(model, params=params))


def test_one_step_of_gradient_descent_is_what_it_is_by_hand(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(20, 3)).astype(np.float32), random.normal(size=20).astype(np.float32)
    weights = np.array([[0.5], [-1.0], [2.0]], np.float32)
    model = from_function({"w": weights}, lambda params, x: x @ params["w"], (3,), output="prediction")
    recipe = Recipe(optimizer="sgd", options={"learning_rate": 0.1}, epochs=1, batch_size=20, loss="squared_error")
    part = Examples({"x": x}, y)
    trainer = replace(trainer_for({"train": part, "validation": part}, tmp_path, recipe), task=REGRESSION)
    gradient = 2 / 20 * x.T @ (x @ weights - y[:, None])
    np.testing.assert_allclose(trainer.fit(model).params["w"], weights - 0.1 * gradient, rtol=1e-4, atol=1e-6)


def test_fit_learns_by_the_recipe_of_the_spec_or_by_its_own(examples: Splits, tmp_path: Path) -> None:
    model = plain(0)
    trainer = trainer_for(examples, tmp_path, STILL)
    assert_same_weights(trainer.fit(model, name="as in the spec"), model)
    fitted = trainer.fit(model, RECIPE, name="own")
    assert accuracy(fitted, examples["validation"]) > 0.9 > accuracy(model, examples["validation"])


def test_the_source_keeps_its_weights(examples: Splits, tmp_path: Path) -> None:
    model = plain(0)
    trainer_for(examples, tmp_path).fit(model)
    assert_same_weights(model, plain(0))


def test_a_loss_of_its_own_takes_the_place_of_the_tasks(examples: Splits, tmp_path: Path) -> None:
    def first_logit_is_five(outputs: Any, labels: jax.Array) -> jax.Array:
        return jnp.square(outputs["logits"][:, 0] - 5)

    recipe = replace(RECIPE, epochs=20, watch="validation.loss", patience=20)
    lines: list[str] = []
    trainer = trainer_for(examples, tmp_path, recipe, lines.append)
    fitted, inputs = trainer.fit(plain(0), loss=first_logit_is_five), examples["validation"].inputs
    before, after = (
        float(jnp.square(model.apply(model.params, model.state, inputs)["logits"][:, 0] - 5).mean())
        for model in (plain(0), fitted)
    )
    assert after < 0.1 * before
    assert accuracy(fitted, examples["validation"]) < 0.7


def test_a_loss_may_have_targets_of_its_own_in_the_order_of_the_examples(examples: Splits, tmp_path: Path) -> None:
    def distance(outputs: Any, targets: dict[str, jax.Array]) -> jax.Array:
        return jnp.square(outputs["logits"] - targets["near"]["logits"]).sum(axis=1)

    rows = {name: np.eye(3, dtype=np.float32)[(part.labels + 1) % 3] for name, part in examples.items()}
    targets = {name: {"near": {"logits": array}} for name, array in rows.items()}
    fitted = trainer_for(examples, tmp_path).fit(plain(0), replace(RECIPE, epochs=15), loss=distance, targets=targets)
    moved = {name: replace(part, labels=(part.labels + 1) % 3) for name, part in examples.items()}
    assert accuracy(fitted, moved["validation"]) > 0.9


@pytest.mark.parametrize(
    ("targets", "found"), [({"near": np.zeros(199)}, "199"), ({"a": np.zeros(200), "b": np.zeros(3)}, "3, 200")]
)
def test_targets_that_are_not_one_per_example_are_refused(
    targets: Any, found: str, examples: Splits, tmp_path: Path
) -> None:
    with pytest.raises(DeploycheckError, match=f"the train split has 200 examples, and its targets are for {found}"):
        trainer_for(examples, tmp_path).fit(plain(0), targets={"train": targets})


def test_the_constraint_changes_the_updates_of_every_step(examples: Splits, tmp_path: Path) -> None:
    lines: list[str] = []
    recipe = replace(RECIPE, options={"learning_rate": 1.0}, epochs=2, batch_size=20)
    zeroed = replace(plain(0), params=jax.tree.map(jnp.zeros_like, plain(0).params))
    trainer = trainer_for(examples, tmp_path, recipe, lines.append)
    back_to_zero = optax.stateless(lambda updates, params: jax.tree.map(jnp.negative, params))
    assert_same_weights(trainer.fit(zeroed, constraint=back_to_zero), zeroed)
    # The mean over all steps is the loss of equal logits only if no step began from other weights.
    assert [f"loss {math.log(3):.4f}" in line for line in lines] == [True, True]


def test_weights_that_the_constraint_holds_stay_while_the_others_learn(examples: Splits, tmp_path: Path) -> None:
    model = plain(0)
    mask = jnp.arange(36)[:, None] % 2 == 0
    pruned = replace(model, params={**model.params, "kernel": model.params["kernel"] * mask})
    hold = optax.stateless(lambda updates, params: {**updates, "kernel": updates["kernel"] * mask})
    fitted = trainer_for(examples, tmp_path).fit(pruned, constraint=hold)
    kernel = np.asarray(fitted.params["kernel"])
    np.testing.assert_array_equal(kernel[1::2], 0)
    assert np.all(np.any(kernel[::2] != np.asarray(model.params["kernel"])[::2], axis=1))
    assert accuracy(fitted, examples["validation"]) > 0.9


class Counted(NamedTuple):
    steps: jax.Array


def stop_after(steps: int) -> optax.GradientTransformation:
    """Return a constraint with a state of its own: after so many steps there are no updates."""

    def update(updates: Any, state: Counted, params: Any = None) -> tuple[Any, Counted]:
        return jax.tree.map(lambda it: it * (state.steps < steps), updates), Counted(state.steps + 1)

    return optax.GradientTransformation(lambda params: Counted(jnp.zeros((), jnp.int32)), update)


def test_a_constraint_may_count_steps_over_all_epochs(examples: Splits, tmp_path: Path) -> None:
    trainer = trainer_for(examples, tmp_path)
    assert trainer.steps(RECIPE) == 6 * (200 // 32)
    half = trainer.fit(plain(0), constraint=stop_after(3 * (200 // 32)), name="half")
    stopped = trainer.fit(plain(0), replace(RECIPE, epochs=3), name="three epochs")
    for name, array in half.weights.items():
        np.testing.assert_allclose(
            array, stopped.weights[name], rtol=1e-5, atol=1e-6
        )  # two programs, whose sums differ


def test_the_weights_are_those_of_the_best_epoch(examples: Splits, tmp_path: Path) -> None:
    recipe = replace(RECIPE, options={"learning_rate": 0.3}, epochs=60, watch="validation.loss", patience=2)
    lines: list[str] = []
    trained = trainer_for(examples, tmp_path / "patient", recipe, lines.append).fit(plain(0))
    shorter = replace(recipe, epochs=len(lines) - 2)
    assert_same_weights(trained, trainer_for(examples, tmp_path / "shorter", shorter).fit(plain(0)))


def test_lines_of_progress_name_the_training(examples: Splits, tmp_path: Path) -> None:
    lines: list[str] = []
    trainer_for(examples, tmp_path, STILL, lines.append).fit(plain(0), name="second round")
    assert [line.partition(", ")[0] for line in lines] == ["second round: epoch 1/2", "second round: epoch 2/2"]


def test_trainings_with_different_names_are_resumed_apart(examples: Splits, tmp_path: Path) -> None:
    lines: list[str] = []
    trainer = trainer_for(examples, tmp_path, replace(RECIPE, epochs=1), lines.append)
    first = trainer.fit(plain(0), name="first")
    second = trainer.fit(first, name="second")
    assert len(lines) == 2
    assert not np.array_equal(first.params["kernel"], second.params["kernel"])
    assert_same_weights(trainer.fit(plain(0), name="first"), first)
    assert len(lines) == 2


def fit_until_killed(epoch: int, scratch: Path, examples: Splits) -> None:
    trainer_for(examples, scratch, progress=kill_at(epoch)).fit(plain(0))


def test_a_killed_fit_resumes_and_ends_where_an_undisturbed_one_does(examples: Splits, tmp_path: Path) -> None:
    run_until_killed(fit_until_killed, 4, tmp_path / "killed", examples)
    lines: list[str] = []
    resumed = trainer_for(examples, tmp_path / "killed", progress=lines.append).fit(plain(0))
    whole = trainer_for(examples, tmp_path / "whole").fit(plain(0))
    assert lines[0].startswith("finetune: resumed after epoch")
    assert not any("epoch 1/" in line for line in lines)
    assert_same_weights(resumed, whole)


def test_a_model_whose_outputs_do_not_fit_the_labels_is_refused(examples: Splits, tmp_path: Path) -> None:
    model = from_function({"w": jnp.zeros((36, 2))}, lambda params, x: x.reshape(-1, 36) @ params["w"], (6, 6, 1))
    with pytest.raises(DeploycheckError, match=r"gives \[2, 2\], expected logits \[2, 3\] or more"):
        trainer_for(examples, tmp_path).fit(model)


def test_a_model_with_quantised_weights_is_refused(examples: Splits, tmp_path: Path) -> None:
    small = quantize_weights(plain(0), QuantizeOptions(weights="int8"))
    with pytest.raises(DeploycheckError, match="a model with quantised weights can't be trained"):
        trainer_for(examples, tmp_path).fit(small)
