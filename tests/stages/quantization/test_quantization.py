from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from deploycheck.errors import DeploycheckError
from deploycheck.stages.model import Model, build_model
from deploycheck.stages.quantization import describe_share, quantize_weights, quantized_form
from tests.stages.networks import from_function
from tests.stages.quantization.making import int8, options, products, run
from tests.stages.quantization.reached import normal

Stripes = tuple[np.ndarray, np.ndarray]

with_and_without_activations = pytest.mark.parametrize(
    "activations", [True, False], ids=["activations", "weights-only"]
)


@with_and_without_activations
def test_every_form_is_quantised_and_stays_close(
    activations: bool, builder: Callable[[int], Model], stripes: Stripes
) -> None:
    model, inputs = builder(0), {"image": stripes[0][:32]}
    before = run(model, inputs)["logits"]
    after = run(quantize_weights(model, int8(activations=activations, at_least=0.0)), inputs)["logits"]
    assert 0 < float(jnp.abs(before - after).max()) < 0.05 * float(jnp.abs(before).max())


def test_kernels_are_int8_and_the_rest_is_untouched(builder: Callable[[int], Model]) -> None:
    model = builder(0)
    before, after = model.weights, quantize_weights(model, int8(activations=True, at_least=0.0)).weights
    kernels = [name for name, array in before.items() if array.ndim > 1]
    assert len(kernels) == 2
    for name in kernels:
        assert name not in after
        assert after[name + "/qvalue"].dtype == jnp.int8
        assert after[name + "/qvalue"].shape == before[name].shape
        assert after[name + "/scale"].size == before[name].shape[-1]
    untouched = set(before) - set(kernels)
    assert set(after) == untouched | {name + part for name in kernels for part in ("/qvalue", "/scale")}
    for name in untouched:
        np.testing.assert_array_equal(after[name], before[name])


def test_the_program_multiplies_in_int8(builder: Callable[[int], Model], stripes: Stripes) -> None:
    lines = products(quantize_weights(builder(0), int8(activations=True, at_least=0.0)), {"image": stripes[0][:2]})
    assert len(lines) == 2
    assert all("xi8>" in line for line in lines)


def test_an_answer_does_not_depend_on_its_neighbours(builder: Callable[[int], Model], stripes: Stripes) -> None:
    small = quantize_weights(builder(0), int8(activations=True, at_least=0.0))
    loud = np.concatenate([stripes[0][:1], 1000 * stripes[0][1:2]])
    alone = run(small, {"image": stripes[0][:1]})["logits"]
    np.testing.assert_allclose(run(small, {"image": loud})["logits"][:1], alone, atol=1e-5)


@with_and_without_activations
def test_the_form_of_a_quantised_model_is_made_without_its_weights(
    activations: bool, builder: Callable[[int], Model], stripes: Stripes
) -> None:
    small = quantize_weights(builder(0), int8(activations=activations, at_least=0.0))
    form = quantized_form(builder(0).form, int8(activations=activations))
    for one, other in ((form.params, small.form.params), (form.state, small.form.state)):
        assert jax.tree.structure(one) == jax.tree.structure(other)
        assert jax.tree.leaves(one) == jax.tree.leaves(other)
    again, inputs = form.with_weights(small.weights), {"image": stripes[0][:4]}
    np.testing.assert_array_equal(run(again, inputs)["logits"], run(small, inputs)["logits"])


def test_the_source_is_not_changed(builder: Callable[[int], Model], stripes: Stripes) -> None:
    model, inputs = builder(0), {"image": stripes[0][:4]}
    before = run(model, inputs)["logits"]
    quantize_weights(model, int8(activations=True, at_least=0.0))
    np.testing.assert_array_equal(run(model, inputs)["logits"], before)


class NnxRemat(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.dense = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        @nnx.remat
        def forward(dense: nnx.Linear, x: jax.Array) -> jax.Array:
            return nnx.silu(dense(x))

        return forward(self.dense, x)


class LinenRemat(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return linen.silu(linen.remat(linen.Dense)(3)(x))


def plain_remat(key: jax.Array) -> Any:
    params = {"kernel": jax.random.normal(key, (4, 3))}
    return params, jax.checkpoint(lambda params, x: jax.nn.silu(x @ params["kernel"]))


@pytest.mark.parametrize("build", [NnxRemat, LinenRemat, plain_remat])
def test_a_model_that_recomputes_its_activations_is_quantised(build: Callable[..., Any]) -> None:
    inputs = {"x": jax.random.normal(jax.random.key(1), (2, 4))}
    model = build_model(build, {}, inputs, seed=0, outputs=("logits",))
    small = quantize_weights(model, int8(activations=True, at_least=0.0))
    lines = products(small, inputs)
    assert len(lines) == 1
    assert "xi8>" in lines[0]
    np.testing.assert_allclose(run(small, inputs)["logits"], run(model, inputs)["logits"], atol=0.05)
    form = quantized_form(model.form, int8(activations=True))
    assert {name: leaf.dtype for name, leaf in form.weights.items()} == {
        name: leaf.dtype for name, leaf in small.weights.items()
    }


def two_products(params: Any, x: jax.Array) -> jax.Array:
    channels = jax.lax.conv_general_dilated(
        x, params["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return channels.reshape(x.shape[0], -1) @ params["dense"]


@with_and_without_activations
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_quantised_products_keep_their_dtype(dtype: str, activations: bool) -> None:
    with jax.enable_x64(dtype == "float64"):
        random = np.random.default_rng(0)
        params = {
            "conv": jnp.asarray(random.normal(size=(3, 3, 1, 2)), dtype),
            "dense": jnp.asarray(random.normal(size=(32, 3)), dtype),
        }
        model = from_function(params, two_products, (4, 4, 1), dtype=dtype)
        inputs = {"x": jnp.asarray(random.normal(size=(2, 4, 4, 1)), dtype)}
        before = run(model, inputs)["logits"]
        after = run(quantize_weights(model, int8(activations=activations, at_least=0.0)), inputs)["logits"]
        assert before.dtype == after.dtype == dtype
        difference = np.abs(np.asarray(before - after, np.float64)).max()
        assert difference < 0.05 * np.abs(np.asarray(before, np.float64)).max()


@with_and_without_activations
@pytest.mark.parametrize("shape", [(4, 3), (3, 3, 1, 2)], ids=["matrix", "convolution"])
def test_a_product_that_asks_for_a_wider_result_gives_it(shape: tuple[int, ...], activations: bool) -> None:
    def product(params: Any, x: jax.Array) -> jax.Array:
        if len(shape) == 2:
            return jnp.dot(x, params["w"], preferred_element_type=jnp.float32)
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, params["w"], (1, 1), "SAME", dimension_numbers=numbers, preferred_element_type=jnp.float32
        )

    example = (4,) if len(shape) == 2 else (4, 4, 1)
    model = from_function({"w": jnp.ones(shape, jnp.bfloat16)}, product, example, dtype=jnp.bfloat16)
    small = quantize_weights(model, int8(activations=activations, at_least=0.0))
    assert run(small, {"x": jnp.ones((2, *example), jnp.bfloat16)})["logits"].dtype == jnp.float32


def test_tied_weights_are_quantised_once() -> None:
    model = from_function({"e": jnp.eye(4) * 3}, lambda params, x: (x @ params["e"]) @ params["e"].T, (4,))
    inputs = {"x": jnp.arange(8.0).reshape(2, 4)}
    small = quantize_weights(model, int8(activations=True, at_least=0.0))
    assert sorted(small.weights) == ["params/e/qvalue", "params/e/scale"]
    np.testing.assert_allclose(run(small, inputs)["logits"], run(model, inputs)["logits"], rtol=0.03)


def test_a_product_of_two_weights_is_evaluated_in_their_own_dtype() -> None:
    random = np.random.default_rng(0)
    params = {name: jnp.asarray(random.normal(size=(4, 4)), jnp.float32) for name in ("a", "b")}
    model = from_function(params, lambda params, x: x @ params["a"] + x @ (params["a"] @ params["b"]), (4,))
    inputs = {"x": jnp.asarray(random.normal(size=(2, 4)), jnp.float32)}
    small = quantize_weights(model, int8(activations=True, at_least=0.0))
    assert sorted("i8>" in line for line in products(small, inputs)) == [False, False, True]
    np.testing.assert_allclose(run(small, inputs)["logits"], run(model, inputs)["logits"], atol=0.1)


def test_whole_numbers_are_not_quantised() -> None:
    params = {"table": jnp.arange(12).reshape(4, 3), "kernel": jnp.ones((3, 2))}
    model = from_function(
        params, lambda params, x: (x @ params["table"]).astype(jnp.float32) @ params["kernel"], (4,), dtype=jnp.int32
    )
    assert quantize_weights(model, int8(activations=False, at_least=0.0)).weights.keys() == {
        "params/table",
        "params/kernel/qvalue",
        "params/kernel/scale",
    }


def test_nothing_to_quantise_is_an_error() -> None:
    model = from_function({"b": jnp.ones(3)}, lambda params, x: x + params["b"], (3,))
    with pytest.raises(
        DeploycheckError, match=r"only 0 of 12 bytes of parameters would be quantised; left in float: b \(12\)"
    ):
        quantize_weights(model, int8(activations=True, at_least=0.0))


@pytest.mark.parametrize("first", ["int4", "fp8"])
def test_what_an_earlier_method_left_in_float_is_quantised_by_the_next(first: str) -> None:
    weights = {"table": normal(8, 16), "first": normal(16, 6), "second": normal(6, 4)}
    model = from_function(weights, lambda w, x: ((x @ w["table"]) @ w["first"]) @ w["second"], (8,))
    half = quantize_weights(model, options(first, keep=["second"]))
    whole = quantize_weights(half, options("int8"))
    assert {name: whole.params[name].dtype for name in half.params if name in whole.params} == {
        name: array.dtype for name, array in half.params.items() if name != "second"
    }
    assert whole.params["second/qvalue"].dtype == jnp.int8
    inputs = {"x": normal(3, 8)}
    before, after = run(half, inputs)["logits"], run(whole, inputs)["logits"]
    assert 0 < float(jnp.abs(before - after).max()) < 0.02 * float(jnp.abs(before).max())


def test_a_quantised_model_is_not_trained(builder: Callable[[int], Model], stripes: Stripes) -> None:
    small = quantize_weights(builder(0), int8(activations=True, at_least=0.0))
    with pytest.raises(DeploycheckError, match="a model with quantised weights can't be trained"):
        small.train(small.params, small.state, {"image": stripes[0][:2]}, jax.random.key(0))


def test_a_model_that_would_hardly_be_quantised_is_refused_and_says_what_stays_in_float() -> None:
    params = {"reached": jnp.ones((5, 3)), "squared": jnp.ones((5, 5)), "added": jnp.ones((4, 5), jnp.bfloat16)}

    def apply(params: Any, x: jax.Array) -> jax.Array:
        return (x @ params["squared"] ** 2 + params["added"].sum()) @ params["reached"]

    model = from_function(params, apply, (5,))
    with pytest.raises(DeploycheckError) as refused:
        quantize_weights(model, int8(activations=False, at_least=0.5))
    named = "squared (100), added (40)"
    assert refused.value.what == f"only 60 of 200 bytes of parameters would be quantised; left in float: {named}"
    assert "at_least" in refused.value.hint
    quantize_weights(model, int8(activations=False, at_least=0.3))


def test_how_much_of_a_model_is_int8_is_said_in_words() -> None:
    model = from_function(
        {"w": jnp.ones((4, 3)), "b": jnp.ones(3)}, lambda params, x: x @ params["w"] + params["b"], (4,)
    )
    assert describe_share(model.weights) == ""
    small = quantize_weights(model, int8(activations=False, at_least=0.5))
    assert describe_share(small.weights) == "48 of 60 bytes of parameters are quantised; left in float: b (12)"
