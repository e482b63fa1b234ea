"""Models that are trained while their numbers are rounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deploycheck.stages.distillation import lesson_of
from deploycheck.stages.examples import Examples
from deploycheck.stages.methods.quantize import QuantizeOptions
from deploycheck.stages.model import Model, flatten
from deploycheck.stages.quantization import gather, quantize_weights
from deploycheck.stages.quantization.aware import straight_through
from deploycheck.stages.quantization.training import aware, storing, train_quantized
from deploycheck.stages.recipe import Recipe
from tests.stages.networks import build, from_function
from tests.stages.quantization.making import options, run
from tests.stages.quantization.reached import PAIRS, STEPS, WORDS, normal
from tests.stages.trainers import Splits, trainer_for

RECIPE = Recipe(optimizer="sgd", options={"learning_rate": 2e-2}, epochs=4, batch_size=32)
NUMBERS = ("NHWC", "HWIO", "NHWC")


def trainable(model: Model, settings: QuantizeOptions, examples: Examples | None = None) -> tuple[Model, Model]:
    """Return the model as it is trained, and as it is stored without a training."""
    small = quantize_weights(model, settings, examples)
    stored = storing(
        model, settings, {name: array for name, array in small.params.items() if name.endswith("/input_scale")}
    )
    seen = aware(model, small, stored, activations=settings.activations == "int8")
    return seen, replace(small, params=stored(model.params))


def train_outputs(model: Model, inputs: Mapping[str, Any]) -> jax.Array:
    outputs, _ = jax.jit(model.train)(model.params, model.state, inputs, jax.random.key(0))
    return outputs["logits"]


KINDS: dict[str, dict[str, Any]] = {
    "int4 per tensor": {"weights": "int4", "per": "tensor"},
    "int4 in groups": {"weights": "int4", "per": {"group": 2}},
    "fp8": {"weights": "fp8"},
    "int8": {"activations": "int8"},
    "calibrated": {"activations": "int8", "calibrate": {"examples": 8}},
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("recurrent", "calibrated"),
        ("lstm", "int4 per tensor"),
        ("stacked layers", "fp8"),
        ("stacked layers", "calibrated"),
        ("tied embedding", "int4 in groups"),
        ("tied embedding", "calibrated"),
        ("left operand", "calibrated"),
    ],
)
def test_a_model_in_training_gives_what_is_served(name: str, kind: str) -> None:
    make, shape = PAIRS[name]
    params, apply, _, _ = make()
    words = name == "tied embedding"
    model = from_function(params, apply, shape, dtype=jnp.int32 if words else jnp.float32)
    x = np.arange(8 * np.prod(shape)).reshape(8, *shape) % WORDS if words else np.asarray(normal(8, *shape, seed=1))
    inputs = {"x": x.astype(np.int32 if words else np.float32)}
    check_in_training(model, KINDS[kind], inputs)


def check_in_training(model: Model, kind: Mapping[str, Any], inputs: Mapping[str, np.ndarray]) -> None:
    seen, small = trainable(model, options(**kind), Examples(inputs, np.zeros(8, np.int64)))
    trained, served, exact = train_outputs(seen, inputs), run(small, inputs)["logits"], run(model, inputs)["logits"]
    np.testing.assert_allclose(trained, served, atol=2e-5)
    np.testing.assert_allclose(run(seen, inputs)["logits"], served, atol=2e-5)
    assert float(jnp.abs(served - exact).max()) > 2e-4


@pytest.mark.parametrize("transposed", [False, True])
def test_a_product_in_training_rounds_each_example_as_it_arrives(transposed: bool) -> None:
    def apply(params: Any, x: jax.Array) -> jax.Array:
        return x @ params["w"].T if transposed else x @ params["w"]

    x = np.array(normal(8, 6, seed=1))
    x[:, 0] = 2  # a largest number that is negative would be half-way between two codes
    check_in_training(from_function({"w": normal(6, 6)}, apply, (6,)), KINDS["int8"], {"x": x})


def test_a_second_product_that_is_served_in_float_is_not_rounded_in_training() -> None:
    def apply(params: Any, x: jax.Array) -> jax.Array:
        return (x @ params["w"]) @ params["w"].T / 100  # of groups, the scales fit the first product alone

    x = np.array(normal(8, 256, seed=1))
    x[:, 0] = 5
    grouped = {"activations": "int8", "per": {"group": 128}}
    check_in_training(from_function({"w": normal(256, 3)}, apply, (256,)), grouped, {"x": x})


@pytest.mark.parametrize("kind", ["int8", "calibrated", "int4 per tensor"])
def test_a_convolution_in_training_gives_what_is_served(kind: str) -> None:
    def apply(params: Any, x: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, params["w"], (1, 1), "SAME", dimension_numbers=NUMBERS)

    x = np.array(normal(8, STEPS, STEPS, 2, seed=1))
    x[:, 0, 0, 0] = 2
    check_in_training(from_function({"w": normal(3, 3, 2, 4)}, apply, (STEPS, STEPS, 2)), KINDS[kind], {"x": x})


def gradient(model: Model, params: Any, inputs: Mapping[str, Any]) -> Any:
    def loss(params: Any) -> jax.Array:
        return jnp.square(model.train(params, model.state, inputs, jax.random.key(0))[0]["logits"]).sum()

    return jax.jit(jax.grad(loss))(params)


@pytest.mark.parametrize("form", ["nnx", "function"])
def test_the_gradient_is_that_of_the_float_model_at_the_rounded_weights(form: str) -> None:
    model, inputs = build(form, 0), {"image": normal(8, 6, 6, 1)}
    seen, small = trainable(model, options("int4"))
    leaves, restore = flatten(model.params)
    whole = restore({name: getattr(it, "dequantized", it) for name, it in gather(small.params, leaves).items()})
    found, expected = gradient(seen, model.params, inputs), gradient(model, whole, inputs)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4), found, expected)


def test_an_activation_beyond_its_range_has_no_gradient() -> None:
    params = {"shift": jnp.zeros(2), "w": jnp.array([[1.0, 0.5], [0.5, 1.0]])}
    model = from_function(params, lambda params, x: (x + params["shift"]) @ params["w"], (2,))
    calibrated = Examples({"x": np.ones((8, 2), np.float32)}, np.zeros(8, np.int64))
    seen, _ = trainable(model, options(**KINDS["calibrated"]), calibrated)
    found = gradient(seen, {**params, "shift": jnp.array([-0.5, 4.0])}, {"x": jnp.ones((1, 2))})["shift"]
    assert found[0] > 1
    assert found[1] == 0


def test_a_rounded_number_has_the_gradient_of_the_exact_one() -> None:
    value, slope = jax.value_and_grad(lambda x: 3 * straight_through(x * x, jnp.round(x * x)))(1.3)
    assert (value, slope) == (pytest.approx(6), pytest.approx(7.8))


def test_no_code_is_used_that_has_no_negative() -> None:
    params = {"w": jnp.array([[-1.0, 1.0], [0.3, -0.2]])}
    model = from_function(params, lambda params, x: x @ params["w"], (2,))
    for weights, lowest in (("int4", -7), ("int8", -127)):
        stored = storing(model, options(weights), {})(params)
        assert int(stored["w/qvalue"].min()) == lowest
        assert int(stored["w/qvalue"].max()) == -lowest


def uneven(count: int = 600) -> dict[str, Examples]:
    """Return three classes that large features show, and small ones too, but not well."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, count)
    x = random.normal(0, [1.0] * 3 + [0.1] * 3, (count, 6)).astype(np.float32)
    x[np.arange(count), labels] += 2.5
    x[np.arange(count), 3 + labels] += 0.05
    x[:, :3] *= 4
    splits = {"train": slice(300), "validation": slice(300, 400), "unseen": slice(400, None)}
    return {name: Examples({"x": x[rows]}, labels[rows]) for name, rows in splits.items()}


def linear() -> Model:
    """A model of these classes; one scale for all its weights, in 4 bits, leaves only those of the small features."""
    params = {"w": jnp.concatenate([0.4 * jnp.eye(3), 8 * jnp.eye(3)])}
    return from_function(params, lambda params, x: x @ params["w"], (6,))


def accuracy(model: Model, part: Examples) -> float:
    return float((np.asarray(run(model, part.inputs)["logits"]).argmax(axis=1) == part.labels).mean())


COARSE = options("int4", per="tensor")


def seen_splits(examples: Splits) -> Splits:
    return {name: examples[name] for name in ("train", "validation")}


def test_training_while_rounded_regains_what_rounding_at_once_loses(tmp_path: Path) -> None:
    examples = uneven()
    trainer = trainer_for(seen_splits(examples), tmp_path)
    at_once = quantize_weights(linear(), COARSE)
    rounded_after = quantize_weights(trainer.fit(linear(), RECIPE, name="float"), COARSE)
    trained = train_quantized(linear(), COARSE, trainer, RECIPE)
    unseen = examples["unseen"]
    assert accuracy(linear(), unseen) > 0.85
    assert accuracy(at_once, unseen) < 0.6
    assert accuracy(rounded_after, unseen) < 0.6
    assert accuracy(trained, unseen) > 0.85
    assert trained.form.weights == at_once.form.weights


def test_the_epoch_that_is_kept_is_the_best_of_what_is_served(tmp_path: Path) -> None:
    examples = uneven()
    recipe = replace(RECIPE, options={"learning_rate": 1.0}, epochs=6, watch="validation.accuracy", patience=6)
    lines: list[str] = []
    trainer = replace(trainer_for(seen_splits(examples), tmp_path), progress=lines.append)
    trained = train_quantized(linear(), COARSE, trainer, recipe)
    reached = [float(line.partition("validation accuracy ")[2].partition("%")[0]) for line in lines]
    assert reached[-1] < max(reached)
    assert 100 * accuracy(trained, examples["validation"]) == pytest.approx(max(reached))


def test_a_teacher_is_learnt_from_while_the_student_is_rounded(tmp_path: Path) -> None:
    examples = uneven()
    random = np.random.default_rng(1)
    noise = {name: replace(part, labels=random.permutation(part.labels)) for name, part in examples.items()}
    trainer = trainer_for(seen_splits(noise), tmp_path)
    lesson = lesson_of(linear(), linear(), trainer, RECIPE, alpha=1.0, temperature=2.0)
    taught = train_quantized(linear(), COARSE, trainer, RECIPE, lesson)
    assert accuracy(taught, examples["unseen"]) > 0.85


def test_zeros_of_a_pruned_model_stay_zero(tmp_path: Path) -> None:
    sparse = replace(linear(), params={"w": linear().params["w"].at[::2].set(0) + 0.1 * (np.arange(6) % 2)[:, None]})
    trained = train_quantized(sparse, options("int8"), trainer_for(seen_splits(uneven()), tmp_path), RECIPE)
    before, after = (np.asarray(it.params["w/qvalue"]) for it in (quantize_weights(sparse, options("int8")), trained))
    np.testing.assert_array_equal(after[::2], 0)
    assert (after[1::2] != before[1::2]).any()


def test_running_statistics_are_those_of_the_training(examples: Splits, tmp_path: Path) -> None:
    model, recipe = build("nnx", 0), replace(RECIPE, epochs=1)
    trained = train_quantized(model, options("int8", activations="int8"), trainer_for(examples, tmp_path), recipe)
    moved = jax.tree.map(lambda one, other: bool((one != other).all()), trained.state, model.state)
    assert all(jax.tree.leaves(moved))


def test_ranges_that_were_calibrated_stay_in_the_training(tmp_path: Path) -> None:
    examples, settings = uneven(), options(activations="int8", calibrate={"examples": 64})
    trained = train_quantized(linear(), settings, trainer_for(seen_splits(examples), tmp_path), RECIPE)
    before = quantize_weights(linear(), settings, examples["train"])
    np.testing.assert_array_equal(trained.params["w/input_scale"], before.params["w/input_scale"])
    assert accuracy(trained, examples["unseen"]) > 0.85
