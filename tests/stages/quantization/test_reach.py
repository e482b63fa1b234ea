"""Weights are quantised wherever they are, and the answers are those of a plain form of the same model."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qwix
from flax import linen, nnx
from hypothesis import given
from hypothesis import strategies as st

from deploycheck.stages.model import build_model, flatten
from deploycheck.stages.quantization import quantize_weights
from deploycheck.stages.quantization.arithmetic import QuantizedArithmetic, QuantizedWeight
from deploycheck.stages.quantization.axes import regroup
from deploycheck.stages.quantized_share import share_of
from tests.stages.networks import from_function
from tests.stages.quantization.making import int8, products, run
from tests.stages.quantization.reached import PAIRS, WIDTH, WORDS, normal


@pytest.mark.parametrize("activations", [True, False], ids=["activations", "weights-only"])
@pytest.mark.parametrize("name", PAIRS)
def test_every_operand_of_a_product_or_lookup_is_quantised(name: str, activations: bool) -> None:
    make, shape = PAIRS[name]
    params, apply, flat, plain = make()
    words = name == "tied embedding"
    dtype = jnp.int32 if words else jnp.float32
    batch = np.random.default_rng(9).integers(0, WORDS, (4, *shape)) if words else normal(4, *shape, seed=9)
    inputs = {"x": jnp.asarray(batch, dtype)}
    model, reference = from_function(params, apply, shape, dtype=dtype), from_function(flat, plain, shape, dtype=dtype)

    options = int8(activations=activations)
    small, smaller = quantize_weights(model, options), quantize_weights(reference, options)

    biases = {name for name, array in flatten(params)[0].items() if "bias" in name}
    share = share_of({name: (array.size, array.dtype.itemsize) for name, array in small.params.items()})
    assert set(share.sizes) - share.quantized == biases
    in_int8 = ["xi8>" in line for line in products(small, inputs)]
    assert in_int8.count(False) == (2 if name == "heads" else 0)
    answers, expected = run(small, inputs)["logits"], run(smaller, inputs)["logits"]
    np.testing.assert_allclose(answers, expected, atol=4e-3 if name == "bfloat16" else 1e-5)
    if activations:
        alone = run(small, {"x": inputs["x"][:1]})["logits"]
        np.testing.assert_allclose(alone, answers[:1], atol=4e-3 if name == "bfloat16" else 1e-5)
    exact = run(model, inputs)["logits"]
    assert 0 < float(jnp.abs(answers - exact).max()) < 0.05 * float(jnp.abs(exact).max())


class LinenLayers(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layer = linen.scan(
            lambda dense, x, _: (jnp.tanh(dense(x)), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=3,
        )
        return layer(linen.Dense(WIDTH), x, None)[0]


class NnxLayers(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        @nnx.vmap(in_axes=0)
        def make(rngs: nnx.Rngs) -> nnx.Linear:
            return nnx.Linear(WIDTH, WIDTH, rngs=rngs)

        self.layers = make(rngs.split(3))

    def __call__(self, x: jax.Array) -> jax.Array:
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def forward(x: jax.Array, layer: nnx.Linear) -> jax.Array:
            return jnp.tanh(layer(x))

        return forward(x, self.layers)


@pytest.mark.parametrize("build", [LinenLayers, NnxLayers])
def test_layers_that_a_framework_scans_are_quantised(build: Any) -> None:
    inputs = {"x": normal(4, WIDTH, seed=1)}
    model = build_model(build, {}, inputs, seed=0, outputs=("logits",))
    small = quantize_weights(model, int8(activations=True))
    (codes,) = [array for name, array in small.params.items() if name.endswith("kernel/qvalue")]
    (scales,) = [array for name, array in small.params.items() if name.endswith("kernel/scale")]
    assert (codes.shape, scales.shape) == ((3, WIDTH, WIDTH), (3, 1, WIDTH))
    assert all("xi8>" in line for line in products(small, inputs))
    np.testing.assert_allclose(run(small, inputs)["logits"], run(model, inputs)["logits"], atol=0.05)


def test_a_weight_of_two_products_is_stored_once_and_both_are_in_int8() -> None:
    params = {"w": normal(6, 4) * jnp.array([1, 10, 0.1, 3])}
    model = from_function(params, lambda params, x: jnp.tanh(x @ params["w"]) @ params["w"].T, (6,))
    inputs = {"x": normal(3, 6, seed=1)}
    small = quantize_weights(model, int8(activations=True))
    assert small.params["w/scale"].shape == (1, 4)
    assert ["xi8>" in line for line in products(small, inputs)] == [True, True]
    np.testing.assert_allclose(run(small, inputs)["logits"], run(model, inputs)["logits"], rtol=0.05, atol=0.05)


def test_a_weight_that_is_also_used_in_another_way_is_dequantised_there() -> None:
    params = {"w": normal(6, 4), "v": normal(6, 4, seed=2)}

    def apply(params: Any, x: jax.Array) -> jax.Array:
        return x @ params["w"] + params["w"].sum() + x @ (params["v"] / jnp.linalg.norm(params["v"]))

    model = from_function(params, apply, (6,))
    small = quantize_weights(model, int8(activations=False))
    assert sorted(small.params) == ["v", "w/qvalue", "w/scale"]
    inputs = {"x": normal(3, 6, seed=1)}
    np.testing.assert_allclose(run(small, inputs)["logits"], run(model, inputs)["logits"], atol=0.05)


@pytest.mark.parametrize("mode", ["fill", "clip"])
def test_a_word_outside_of_the_table_gives_what_it_gives_in_float(mode: str) -> None:
    params = {"table": normal(WORDS, 4)}
    model = from_function(
        params, lambda params, x: jnp.take(params["table"], x, axis=0, mode=mode), (3,), dtype=jnp.int32
    )
    inputs = {"x": jnp.array([[0, -1, WORDS], [1, 2, 3]])}
    small = quantize_weights(model, int8(activations=False))
    assert small.params["table/scale"].shape == (WORDS, 1)
    np.testing.assert_allclose(run(small, inputs)["logits"], run(model, inputs)["logits"], atol=0.01)


def test_a_lookup_that_fills_with_a_number_of_its_own_leaves_the_table_in_float() -> None:
    def apply(params: Any, x: jax.Array) -> jax.Array:
        return jnp.take(params["table"], x, axis=0, mode="fill", fill_value=7.0) @ params["kernel"]

    model = from_function({"table": normal(WORDS, 4), "kernel": normal(4, 3)}, apply, (3,), dtype=jnp.int32)
    assert "table" in quantize_weights(model, int8(activations=False)).params


@given(st.lists(st.sampled_from([1, 2, 3, 4, 6]), max_size=4), st.data())
def test_the_runs_of_a_reshape_cover_all_axes_and_keep_their_numbers(old: list[int], data: st.DataObject) -> None:
    new = [*data.draw(st.permutations(old)), *data.draw(st.lists(st.just(1), max_size=2))]
    if data.draw(st.booleans()) and len(new) > 1:
        new = [new[0] * new[1], *new[2:]]
    runs = regroup(old, new)
    assert [axis for before, _ in runs for axis in before] == list(range(len(old)))
    assert [axis for _, after in runs for axis in after] == list(range(len(new)))
    for before, after in runs:
        assert math.prod(old[axis] for axis in before) == math.prod(new[axis] for axis in after)


@pytest.mark.parametrize("axes", [(), (0,), (1,), (2,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("sizes", [(6, 4), (2, 12), (24,), (3, 8), (2, 1, 3, 4), (2, 3, 2, 2), (4, 3, 2)])
def test_a_reshaped_weight_is_the_weight_reshaped(sizes: tuple[int, ...], axes: tuple[int, ...]) -> None:
    quantized = qwix.quantize(normal(2, 3, 4), jnp.int8, channelwise_axes=axes)
    weight = QuantizedWeight.of(quantized.qvalue, quantized.scale)
    (equation,) = jax.make_jaxpr(lambda it: jax.lax.reshape(it, sizes))(weight.dequantized).eqns
    moved = QuantizedArithmetic(activations=False).apply(equation, [weight])
    np.testing.assert_array_equal(moved.dequantized, weight.dequantized.reshape(sizes))
    if not axes:
        assert moved.scales.size == 1
