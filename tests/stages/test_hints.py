"""Hints: a student is held against what its teacher computes inside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from deploycheck.errors import DeploycheckError
from deploycheck.stages.distillation import Hints, distill, hinted_loss
from deploycheck.stages.examples import Examples
from deploycheck.stages.hints import HINTS, find_feature, with_hints, without_hints
from deploycheck.stages.kernels import find_kernels
from deploycheck.stages.methods.quantize import QuantizeOptions
from deploycheck.stages.model import Model, build_model
from deploycheck.stages.programs import inference_program, trace
from deploycheck.stages.quantization import quantize_weights
from deploycheck.stages.structure import CHANNELS, cut_model
from tests.stages.networks import IMAGE, LOGITS, from_function
from tests.stages.test_layers import Encoder
from tests.stages.trainers import RECIPE, trainer_for


class Deep(nnx.Module):
    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([nnx.Linear(36, width, rngs=rngs), nnx.Linear(width, width, rngs=rngs)])
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, 3, use_bias=False, rngs=rngs)

    def features(self, image: jax.Array) -> list[jax.Array]:
        first = self.layers[0](image.reshape(-1, 36))
        return [first, self.norm(self.layers[1](nnx.relu(first)))]

    def __call__(self, image: jax.Array) -> jax.Array:
        return self.head(nnx.relu(self.features(image)[1]))


class LinenDeep(linen.Module):
    width: int

    @linen.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        hidden = linen.relu(linen.Dense(self.width, name="first")(image.reshape(-1, 36)))
        return linen.Dense(3)(linen.relu(linen.Dense(self.width, name="second")(hidden)))


def deep(width: int, seed: int = 0) -> Model:
    return build_model(lambda rngs: Deep(width, rngs), {}, IMAGE, seed=seed, outputs=LOGITS)


def linen_deep(width: int, seed: int = 0) -> Model:
    return build_model(lambda: LinenDeep(width), {}, IMAGE, seed=seed, outputs=LOGITS)


def images(count: int = 5) -> dict[str, jax.Array]:
    return {"image": jax.random.normal(jax.random.key(7), (count, 6, 6, 1))}


def feature(model: Model, part: str, inputs: Mapping[str, Any]) -> np.ndarray:
    program = trace(model.apply, model.form, dict(inputs))
    return np.asarray(program.values([find_feature(program, part)], model.params, model.state, dict(inputs))[0])


def test_what_a_part_computes_are_its_sums_with_the_bias() -> None:
    inputs, module = images(), Deep(8, nnx.Rngs(0))
    module.eval()
    first, normed = module.features(inputs["image"])
    np.testing.assert_allclose(feature(deep(8), "layers/0", inputs), first, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(feature(deep(8), "norm", inputs), normed, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(feature(deep(8), "head", inputs), module(inputs["image"]), rtol=1e-5, atol=1e-6)
    # Several layers are one part too: what the last of them gives.
    second = module.layers[1](nnx.relu(first))
    np.testing.assert_allclose(feature(deep(8), "layers", inputs), second, rtol=1e-5, atol=1e-6)


def test_what_a_linen_part_computes_is_what_its_module_gives() -> None:
    model, inputs = linen_deep(8), images()
    module = LinenDeep(8)
    _, seen = module.apply({"params": model.params}, inputs["image"], capture_intermediates=True)
    for name in ("first", "second", "Dense_0"):
        expected = seen["intermediates"][name]["__call__"][0]
        np.testing.assert_allclose(feature(model, name, inputs), expected, rtol=1e-5, atol=1e-6)


def test_what_a_residual_block_computes_is_the_sum_at_its_end() -> None:
    shape = {"x": jax.ShapeDtypeStruct((2, 5, 8), jnp.float32)}
    model, module = build_model(Encoder, {}, shape, seed=0, outputs=LOGITS), Encoder(nnx.Rngs(0))
    module.eval()
    x = jax.random.normal(jax.random.key(1), (3, 5, 8))
    for number, block in enumerate(module.blocks):
        given, x = x, block(x)
        found = feature(model, f"blocks/{number}", {"x": jax.random.normal(jax.random.key(1), (3, 5, 8))})
        np.testing.assert_allclose(found, x, rtol=1e-4, atol=1e-5)
        assert np.abs(found - given).max() > 1e-3


def test_a_transposed_weight_and_a_loop_are_seen_through() -> None:
    def apply(params: Any, x: jax.Array) -> jax.Array:
        hidden = jnp.tanh(x @ params["in"]["w"].T)
        hidden, _ = jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), hidden, params["stack"]["w"])
        return hidden @ params["out"]["w"]

    random = np.random.default_rng(0)
    shapes = {"in": (5, 4), "stack": (3, 5, 5), "out": (5, 2)}
    params = {name: {"w": random.normal(size=shape).astype(np.float32)} for name, shape in shapes.items()}
    model, x = from_function(params, apply, (4,)), random.normal(size=(6, 4)).astype(np.float32)
    np.testing.assert_allclose(feature(model, "in", {"x": x}), x @ params["in"]["w"].T, rtol=1e-5, atol=1e-6)
    hidden = np.tanh(x @ params["in"]["w"].T)
    for layer in params["stack"]["w"]:
        hidden = np.tanh(hidden @ layer)
    np.testing.assert_allclose(feature(model, "stack", {"x": x}), hidden, rtol=1e-4, atol=1e-5)


def test_a_cut_and_a_quantised_teacher_give_hints() -> None:
    model, inputs = deep(8), images()
    narrow = cut_model(model, CHANNELS, 0.5, find_kernels(model))
    assert feature(narrow, "layers/0", inputs).shape == (5, 4)
    small = quantize_weights(model, QuantizeOptions(weights="int8"))
    whole = feature(model, "layers/0", inputs)
    np.testing.assert_allclose(feature(small, "layers/0", inputs), whole, atol=0.05 * np.abs(whole).max())


def test_the_distance_is_the_mean_squared_difference() -> None:
    one, other, inputs = deep(8), deep(8, seed=1), images()
    hinted = with_hints(one, other, {"layers/0": "norm", "layers/1": "layers/1"}, seed=0)
    assert hinted.params["regressors"] == {}
    pairs = [("layers/0", "norm"), ("layers/1", "layers/1")]
    squares = [np.square(feature(one, mine, inputs) - feature(other, theirs, inputs)) for mine, theirs in pairs]
    outputs = hinted.apply(hinted.params, hinted.state, inputs)
    np.testing.assert_allclose(outputs[HINTS], np.mean([it.mean(axis=1) for it in squares], axis=0), rtol=1e-4)
    np.testing.assert_allclose(outputs["logits"], one.apply(one.params, one.state, inputs)["logits"], rtol=1e-5)


def test_where_widths_differ_a_linear_map_is_learned_and_thrown_away() -> None:
    one, other, inputs = deep(4), deep(8, seed=1), images()
    hinted = with_hints(one, other, {"layers/0": "norm"}, seed=0)
    regressor = hinted.params["regressors"]["layers/0"]
    assert {name: leaf.shape for name, leaf in regressor.items()} == {"kernel": (4, 8), "bias": (8,)}
    mapped = feature(one, "layers/0", inputs) @ regressor["kernel"] + regressor["bias"]
    expected = np.square(mapped - feature(other, "norm", inputs)).mean(axis=1)
    np.testing.assert_allclose(hinted.apply(hinted.params, hinted.state, inputs)[HINTS], expected, rtol=1e-4)
    assert without_hints(hinted, one).weights.keys() == one.weights.keys()


def test_its_gradient_reaches_the_student_and_the_map_and_not_the_teacher() -> None:
    hinted = with_hints(deep(4), deep(8, seed=1), {"layers/0": "norm"}, seed=0)

    @jax.grad
    def gradient(params: Any) -> jax.Array:
        outputs, updated = hinted.train(params, hinted.state, images(), jax.random.key(0))
        assert jax.tree.structure(updated) == jax.tree.structure(hinted.state)
        return outputs[HINTS].mean()

    found = gradient(hinted.params)
    assert jnp.abs(found["student"]["layers"][0]["kernel"]).max() > 0
    assert jnp.abs(found["regressors"]["layers/0"]["kernel"]).max() > 0
    assert jnp.abs(found["student"]["head"]["kernel"]).max() == 0


def test_running_statistics_are_learned_and_the_teachers_stay() -> None:
    student = deep(4)
    hinted = with_hints(student, deep(8, seed=1), {"layers/0": "norm"}, seed=0)
    _, updated = hinted.train(hinted.params, hinted.state, images(), jax.random.key(0))
    _, alone = student.train(student.params, student.state, images(), jax.random.key(0))
    assert_same(updated["student"], alone)
    assert_same(updated["teacher"], hinted.state["teacher"])
    assert_same(without_hints(replace(hinted, state=updated), student).state, alone)


def assert_same(one: Any, other: Any) -> None:
    jax.tree.map(lambda mine, theirs: np.testing.assert_allclose(mine, theirs, rtol=1e-5), one, other)


def test_the_hints_have_a_weight_in_the_loss() -> None:
    outputs = {"logits": jnp.ones((2, 3)), HINTS: jnp.array([1.0, 2.0])}
    loss = hinted_loss(lambda outputs, targets: targets, 10.0)
    np.testing.assert_allclose(loss(outputs, jnp.array([5.0, 7.0])), [15.0, 27.0])


def test_a_student_comes_nearer_to_hints_of_more_weight(examples: Mapping[str, Examples], tmp_path: Path) -> None:
    teacher, small = deep(8, seed=1), deep(8)
    inputs = {"image": jnp.asarray(examples["validation"].inputs["image"])}
    wanted = feature(teacher, "layers/0", inputs)

    def distance(weight: float) -> float:
        trainer, hints = trainer_for(examples, tmp_path / str(weight)), Hints({"layers/0": "layers/0"}, weight)
        learned = distill(teacher, small, trainer, RECIPE, alpha=0.5, temperature=2.0, hints=hints)
        assert learned.weights.keys() == small.weights.keys()
        return float(np.square(feature(learned, "layers/0", inputs) - wanted).mean())

    assert distance(10.0) < 0.3 * distance(1e-3)


def refusal(one: Model, other: Model, parts: Mapping[str, str]) -> tuple[str, str]:
    with pytest.raises(DeploycheckError) as caught:
        with_hints(one, other, parts, seed=0)
    return caught.value.what, caught.value.hint


def test_parts_that_are_not_there_are_refused_with_what_was_meant() -> None:
    one, other = deep(4), linen_deep(8)
    assert refusal(one, other, {"layer/0": "first"}) == (
        "in the student there is no part 'layer/0'",
        "did you mean 'layers/0'?",
    )
    assert refusal(one, other, {"layers/0": "zzz"}) == (
        "in the teacher there is no part 'zzz'",
        "there are: Dense_0, first, second",
    )


def test_parts_of_other_shapes_are_refused() -> None:
    shape = {"x": jax.ShapeDtypeStruct((2, 5, 8), jnp.float32)}
    encoder = build_model(Encoder, {}, shape, seed=0, outputs=LOGITS)
    what, hint = refusal(encoder, encoder, {"blocks/0": "head"})
    assert what == "for a batch of 2 the student's blocks/0 gives [2, 5, 8], and the teacher's head [2, 3]"
    assert "the last axis alone" in hint


def test_a_part_with_one_number_for_each_example_is_refused() -> None:
    params = {"a": {"w": jnp.ones(4)}, "b": {"w": jnp.ones((1, 3))}}
    model = from_function(params, lambda params, x: (x @ params["a"]["w"])[:, None] @ params["b"]["w"], (4,))
    what, _ = refusal(model, model, {"a": "a"})
    assert what == "for a batch of 2 the student's a gives [2], and the teacher's a [2]"


def test_a_part_whose_weights_act_on_two_outputs_has_no_single_value() -> None:
    def apply(params: Any, x: jax.Array) -> dict[str, jax.Array]:
        hidden = x @ params["body"]["w"]
        return {"one": hidden + x @ params["body"]["v"], "two": hidden}

    params = {"body": {"w": jnp.ones((4, 4)), "v": jnp.ones((4, 4))}}
    program = inference_program(from_function(params, apply, (4,)).form)
    with pytest.raises(DeploycheckError, match=re.escape("the part 'body' computes no single value")):
        find_feature(program, "body")
