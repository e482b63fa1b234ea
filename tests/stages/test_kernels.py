from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from deploycheck.stages.kernels import find_kernels
from deploycheck.stages.model import Model
from tests.stages.networks import from_function

SQUARE = jnp.ones((4, 4))


def test_each_framework_has_its_kernels_found_and_nothing_else(builder: Callable[[int], Model]) -> None:
    model = builder(0)
    kernels = {name for name, leaf in model.weights.items() if leaf.ndim >= 2 and name.startswith("params/")}
    assert {f"params/{name}" for name in find_kernels(model)} == kernels


@pytest.mark.parametrize(
    ("function", "summed"),
    [
        (lambda w, x: x @ w, 0),
        (lambda w, x: x @ w.T, 1),
        (lambda w, x: jax.vmap(lambda row: w @ row)(x), 1),
        (lambda w, x: jnp.einsum("oi,bi->bo", w, x), 1),
        (lambda w, x: jax.jit(jnp.matmul)(x, w), 0),
        (lambda w, x: jax.checkpoint(jnp.matmul)(x, w), 0),
        (lambda w, x: (x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)).astype(jnp.float32), 0),
        (lambda w, x: x @ w.reshape(4, 1, 4)[:, 0], 0),
        (lambda w, x: x @ w.reshape(2, 2, 4).reshape(4, 4), 0),
        (lambda w, x: lax.scan(lambda carry, _: (carry @ w, None), x, None, length=2)[0], 0),
        (lambda w, x: lax.fori_loop(0, 2, lambda _, carry: carry @ w, x), 0),
        (lambda w, x: lax.while_loop(lambda c: c.sum() < 0, lambda carry: carry @ w, x), 0),
        (lambda w, x: lax.cond(x.sum() > 0, lambda: x @ w, lambda: x), 0),
    ],
)
def test_a_weight_is_found_wherever_it_is_used(function: Callable[..., Any], summed: int | None) -> None:
    model = from_function({"w": SQUARE}, lambda params, x: function(params["w"], x), (4,))
    assert find_kernels(model) == {"w": summed}


def test_a_stack_of_layers_that_is_scanned_is_one_kernel() -> None:
    def stacked(params: Any, x: jax.Array) -> jax.Array:
        return lax.scan(lambda carry, layer: (carry @ layer, None), x, params["layers"])[0]

    assert find_kernels(from_function({"layers": jnp.ones((3, 4, 4))}, stacked, (4,))) == {"layers": 1}


def test_a_convolution_sums_over_its_input_channels() -> None:
    def convolve(params: Any, x: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, params["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    assert find_kernels(from_function({"w": jnp.ones((3, 3, 2, 5))}, convolve, (6, 6, 2))) == {"w": 2}


@pytest.mark.parametrize(
    "function",
    [
        lambda w, x: x * w[0],
        lambda w, x: w[jnp.zeros(2, jnp.int32)] + x,
        lambda w, x: x * w.sum(),
        lambda w, x: x @ jnp.ones((4, 4)),
    ],
)
def test_a_weight_that_no_product_uses_is_not_a_kernel(function: Callable[..., Any]) -> None:
    model = from_function({"w": SQUARE}, lambda params, x: function(params["w"], x), (4,))
    assert find_kernels(model) == {}


def test_vectors_and_integers_are_not_kernels() -> None:
    params = {"vector": jnp.ones(4), "codes": jnp.ones((4, 4), jnp.int8)}
    model = from_function(params, lambda p, x: (x @ p["vector"])[:, None] + x @ p["codes"].astype(jnp.float32), (4,))
    assert find_kernels(model) == {}
