"""The fast forms of products give what the plain ones do."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qwix
from jax import export

from deploycheck.stages.quantization.products import exact_product, int8_product, multiply, quantize_as_it_arrives
from tests.stages.quantization.reached import normal

ALONG, SHARED = ((1,), (0,)), ((), ())

dynamic_product = int8_product(quantize_as_it_arrives)


def quantized(*shape: int) -> Any:
    return qwix.quantize(normal(*shape), jnp.int8, channelwise_axes=[len(shape) - 1])


@pytest.mark.parametrize("rows", [1, 7, 32])
@pytest.mark.parametrize("kind", ["normal", "wide", "dyadic", "tiny"])
def test_an_exact_product_is_as_close_as_float32(rows: int, kind: str) -> None:
    random = np.random.default_rng(0)
    x = {
        "normal": random.normal(size=(rows, 96)),
        "wide": random.normal(size=(rows, 96)) * np.logspace(-3, 3, 96),
        "dyadic": random.integers(-256, 257, (rows, 96)) / 256,
        "tiny": random.normal(size=(rows, 96)) * 1e-25,
    }[kind].astype(np.float32)
    weight = quantized(96, 5)
    whole = np.asarray(qwix.dequantize(weight))
    expected = x.astype(np.float64) @ whole.astype(np.float64)
    product = jax.jit(lambda x: exact_product(x, weight, ALONG, SHARED))(x)
    bound = 2**-22 * np.abs(x).max(axis=1, keepdims=True) * np.abs(whole).sum(axis=0)
    assert (np.abs(product - expected) <= bound).all()


def test_an_exact_product_of_zeros_is_zero() -> None:
    product = exact_product(jnp.zeros((2, 8)), quantized(8, 3), ALONG, SHARED)
    np.testing.assert_array_equal(product, np.zeros((2, 3)))


def test_an_exact_product_multiplies_in_int8_and_never_makes_the_weight_float() -> None:
    weight = quantized(96, 80)
    text = jax.jit(lambda x: exact_product(x, weight, ALONG, SHARED)).lower(jnp.ones((1, 96))).as_text()
    assert "tensor<96x80xi8>" in text
    assert "tensor<96x80xf32>" not in text


@pytest.mark.parametrize(("rows", "groups"), [(65, {}), (2, {0: 4})], ids=["many rows", "groups"])
def test_where_float_is_faster_there_is_no_exact_product(rows: int, groups: dict[int, int]) -> None:
    weight = qwix.quantize(normal(8, 3), jnp.int8, channelwise_axes=[1], tiled_axes=groups)
    assert exact_product(jnp.ones((rows, 8)), weight, ALONG, SHARED) is None


def test_in_an_export_the_size_of_the_batch_chooses_the_form() -> None:
    weight = quantized(96, 80)
    (batch,) = export.symbolic_shape("batch")
    shape = jax.ShapeDtypeStruct((batch, 96), jnp.float32)
    exported = export.export(jax.jit(lambda x: exact_product(x, weight, ALONG, SHARED)))(shape)
    compiled = {rows: jax.jit(exported.call).lower(jnp.ones((rows, 96))).compile().as_text() for rows in (1, 64)}
    assert ["s8[96,80]" in text for text in compiled.values()] == [True, False]
    assert not any("conditional" in text for text in compiled.values())


def test_one_row_is_multiplied_as_two() -> None:
    weight, x = quantized(96, 5), normal(3, 96, seed=1)
    multiplied = jax.jit(lambda x: dynamic_product(x, weight, ALONG, SHARED))
    assert "optimization_barrier" in multiplied.lower(x[:1]).as_text()
    assert "optimization_barrier" not in multiplied.lower(x).as_text()
    np.testing.assert_allclose(multiplied(x[:1]), multiplied(x)[:1], rtol=1e-6)


@pytest.mark.parametrize("product", [dynamic_product, exact_product])
def test_a_product_is_exported_for_a_batch_of_any_size(product: Any) -> None:
    weight, x = quantized(96, 5), normal(4, 96, seed=1)
    (batch,) = export.symbolic_shape("batch")
    exported = export.export(jax.jit(lambda x: product(x, weight, ALONG, SHARED)))(
        jax.ShapeDtypeStruct((batch, 96), jnp.float32)
    )
    expected = x @ qwix.dequantize(weight)
    for rows in (1, 4):
        np.testing.assert_allclose(exported.call(x[:rows]), expected[:rows], atol=0.05)
    compiled = jax.jit(exported.call).lower(x[:1]).compile().as_text()
    dots = [line for line in compiled.splitlines() if " dot(" in line or "custom-call" in line]
    assert not any("s8[1,96]" in line for line in dots)


def test_a_product_with_a_batch_of_weights_has_a_scale_for_each() -> None:
    weight = qwix.quantize(normal(3, 8, 4), jnp.int8, channelwise_axes=[0, 2])
    x = normal(5, 3, 8, seed=1)

    def apply(x: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.einsum("bei,eio->beo", x, w)

    equations = jax.make_jaxpr(apply)(x, qwix.dequantize(weight)).eqns
    (equation,) = [it for it in equations if it.primitive.name == "dot_general"]
    side = [var.aval.shape for var in equation.invars].index((3, 8, 4))
    for product in (dynamic_product, exact_product):
        result = multiply(equation, x, weight, side, product)
        expected = equation.primitive.bind(
            *((qwix.dequantize(weight), x) if side == 0 else (x, qwix.dequantize(weight))), **equation.params
        )
        assert result is not None
        np.testing.assert_allclose(result, expected, atol=0.05)
