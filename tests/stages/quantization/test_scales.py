"""Types, what shares a scale, and what is kept in float."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import qwix

from deploycheck.errors import DeploycheckError
from deploycheck.stages.model import Model
from deploycheck.stages.quantization import quantize_weights, quantized_form
from deploycheck.stages.quantization.arithmetic import QuantizedWeight
from tests.stages.networks import from_function
from tests.stages.quantization.making import options, products, run
from tests.stages.quantization.reached import PAIRS, WORDS, normal

TYPES = {"int8": jnp.int8, "int4": jnp.int4, "fp8": jnp.float8_e4m3fn}
X = {"x": normal(5, 64, seed=1)}


def dense() -> Model:
    params = {"kernel": normal(64, 6), "bias": jnp.ones(6), "head": normal(6, 4)}

    def apply(params: Any, x: jax.Array) -> jax.Array:
        return jax.nn.relu(x @ params["kernel"] + params["bias"]) @ params["head"]

    return from_function(params, apply, (64,))


@pytest.mark.parametrize("weights", TYPES)
@pytest.mark.parametrize("per", ["channel", "tensor", {"group": 2}], ids=str)
def test_weights_are_what_qwix_makes_of_them(weights: str, per: Any) -> None:
    model = dense()
    small = quantize_weights(model, options(weights, per=per))
    axes: dict[str, Any] = {"channel": {"channelwise_axes": [1]}, "tensor": {}}.get(
        str(per), {"channelwise_axes": [1], "tiled_axes": {0: 2}}
    )
    for name in ("kernel", "head"):
        expected = qwix.quantize(model.params[name], TYPES[weights], **axes)
        assert small.params[name + "/qvalue"].dtype == TYPES[weights]
        np.testing.assert_array_equal(small.params[name + "/qvalue"], expected.qvalue)
        np.testing.assert_array_equal(small.params[name + "/scale"], expected.scale)
    exact = {
        name: qwix.dequantize(qwix.quantize(model.params[name], TYPES[weights], **axes)) for name in ("kernel", "head")
    }
    expected_outputs = model.apply({**model.params, **exact}, {}, X)["logits"]
    np.testing.assert_allclose(run(small, X)["logits"], expected_outputs, atol=1e-5)


def test_fp8_codes_are_rounded_as_the_type_is_defined() -> None:
    model = dense()
    small = quantize_weights(model, options("fp8"))
    scaled = np.asarray(model.params["kernel"] / small.params["kernel/scale"])
    expected = scaled.clip(-448, 448).astype(ml_dtypes.float8_e4m3fn)
    np.testing.assert_array_equal(np.asarray(small.params["kernel/qvalue"]), expected)
    every = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn)
    widened = jax.jit(lambda codes: codes.astype(jnp.float32))(every)
    np.testing.assert_array_equal(widened, every.astype(np.float32))


def test_fewer_bits_and_fewer_scales_lose_more() -> None:
    kernel = normal(64, 6) * jnp.logspace(-1, 1, 6)
    model = from_function({"kernel": kernel}, lambda params, x: x @ params["kernel"], (64,))

    def error(weights: str, per: Any) -> float:
        params = quantize_weights(model, options(weights, per=per)).params
        weight = QuantizedWeight.of(params["kernel/qvalue"], params["kernel/scale"]).dequantized
        return float((jnp.abs(weight - kernel).mean(axis=0) / jnp.abs(kernel).mean(axis=0)).mean())

    assert error("int8", "channel") < error("fp8", "channel") < error("int4", "channel")
    assert error("int4", {"group": 8}) < error("int4", "channel") < error("int4", "tensor")


@pytest.mark.parametrize("name", PAIRS)
def test_codes_of_four_bits_in_groups_are_followed_wherever_a_weight_is(name: str) -> None:
    make, shape = PAIRS[name]
    params, apply, flat, plain = make()
    dtype = jnp.int32 if name == "tied embedding" else jnp.float32
    inputs = {
        "x": jnp.arange(4 * np.prod(shape)).reshape(4, *shape) % WORDS if dtype == jnp.int32 else normal(4, *shape)
    }
    model, reference = from_function(params, apply, shape, dtype=dtype), from_function(flat, plain, shape, dtype=dtype)
    settings = options("int4", per={"group": 2})
    answers, expected = (run(quantize_weights(it, settings), inputs)["logits"] for it in (model, reference))
    np.testing.assert_allclose(answers, expected, atol=4e-3 if name == "bfloat16" else 1e-5)


@pytest.mark.parametrize("per", ["tensor", {"group": 128}], ids=str)
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_activations_are_int8_with_every_kind_of_scale(weights: str, per: Any) -> None:
    params = {"kernel": normal(256, 6)}
    model = from_function(params, lambda params, x: x @ params["kernel"], (256,))
    inputs = {"x": normal(3, 256, seed=1)}
    small = quantize_weights(model, options(weights, activations="int8", per=per))
    assert all("xi8>" in line for line in products(small, inputs))
    only = quantize_weights(model, options(weights, per=per))
    np.testing.assert_allclose(run(small, inputs)["logits"], run(only, inputs)["logits"], atol=0.05)


def test_each_layer_of_a_scanned_model_has_a_scale_of_its_own_per_tensor() -> None:
    params, apply, _, _ = PAIRS["stacked layers"][0]()
    model = from_function(params, apply, (8,))
    assert quantize_weights(model, options(per="tensor")).params["layers/scale"].shape == (3, 1, 1)


@pytest.mark.parametrize(("keep", "left"), [(["head"], {"head"}), (["*"], None), (["*e*"], None), (["k*", "h*"], None)])
def test_weights_are_kept_in_float_by_pattern(keep: list[str], left: set[str] | None) -> None:
    settings = options(keep=keep)
    if left is None:
        with pytest.raises(DeploycheckError, match="only 0 of"):
            quantize_weights(dense(), settings)
        return
    small = quantize_weights(dense(), settings)
    assert left | {"bias", "kernel/qvalue", "kernel/scale"} == set(small.params)
    assert quantized_form(dense().form, settings).weights.keys() == small.weights.keys()


def test_a_pattern_that_matches_no_weight_is_an_error() -> None:
    with pytest.raises(DeploycheckError, match="`keep`: no weight is called 'heads'") as refused:
        quantize_weights(dense(), options(keep=["bias", "heads"]))
    assert refused.value.hint == "did you mean 'head'?"


def test_a_group_that_does_not_divide_is_an_error_that_names_the_weights() -> None:
    with pytest.raises(DeploycheckError) as refused:
        quantize_weights(dense(), options("int4", per={"group": 32}))
    assert refused.value.what == "weights can't be cut into groups of 32: head sums over 6"
    assert "keep" in refused.value.hint
    small = quantize_weights(dense(), options("int4", per={"group": 32}, keep=["head"]))
    assert small.params["kernel/scale"].shape == (2, 6)
