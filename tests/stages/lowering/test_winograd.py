"""Winograd's filtering has the values and the gradients of the convolution's definition."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import lax

from deploycheck.stages.lowering import winograd

pads = st.tuples(st.integers(0, 2), st.integers(0, 2))
sizes = st.integers(1, 4)


def random(*shape: int, seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def defined(image: jax.Array, kernel: jax.Array, padding: winograd.Padding) -> jax.Array:
    return lax.conv_general_dilated(image, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


@settings(max_examples=3, deadline=None)
@given(
    count=sizes,
    extents=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    channels=sizes,
    features=sizes,
    padding=st.tuples(pads, pads),
)
@example(2, (5, 4), 2, 3, ((0, 0), (2, 1)))  # an odd number of rows and of columns
def test_values_and_gradients_are_those_of_the_definition(
    count: int, extents: tuple[int, int], channels: int, features: int, padding: winograd.Padding
) -> None:
    image, kernel = random(count, *extents, channels, seed=0), random(3, 3, channels, features, seed=1)
    result = jax.eval_shape(functools.partial(defined, padding=padding), image, kernel)
    direction = random(*result.shape, seed=2)

    @functools.partial(jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0})
    def with_gradients(convolve: Callable[..., jax.Array], *given: jax.Array) -> tuple[jax.Array, ...]:
        value, gradients = jax.vjp(convolve, *given)
        return value, *gradients(direction)

    found = with_gradients(lambda *given: winograd.convolve(*given, padding, None), image, kernel)
    expected = with_gradients(lambda *given: defined(*given, padding), image, kernel)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5 * float(jnp.abs(theirs).max() + 1))


def test_rounding_is_that_of_single_precision() -> None:
    image, kernel = random(2, 8, 8, 128, seed=0), random(3, 3, 128, 16, seed=1)
    exact = np.asarray(
        sum(
            np.einsum("nhwc,cf->nhwf", np.float64(image[:, i : i + 6, j : j + 6]), np.float64(kernel[i, j]))
            for i in range(3)
            for j in range(3)
        )
    )
    found = jax.jit(winograd.convolve, static_argnums=(2, 3))(image, kernel, ((0, 0), (0, 0)), None)
    assert np.abs(found - exact).max() < 2e-6 * np.abs(exact).max()


def test_a_gradient_has_fewer_products_than_the_definition() -> None:
    image, kernel = random(1, 4, 4, 8, seed=0), random(3, 3, 8, 8, seed=1)
    traced = jax.make_jaxpr(lambda *given: winograd.convolve(*given, ((1, 1), (1, 1)), None))(image, kernel)
    products = [it for it in traced.jaxpr.eqns[0].params["call_jaxpr"].eqns if it.primitive.name == "dot_general"]
    rows = sum(it.outvars[0].aval.size // 8 for it in products)
    assert rows == 16 * 4 < 9 * 16
