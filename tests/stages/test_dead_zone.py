from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploycheck.errors import DeploycheckError
from deploycheck.stages.dead_zone import (
    dead_zone_form,
    find_codes,
    quantize_with_dead_zone,
    scale_of_least_error,
    scale_to_fit,
)
from deploycheck.stages.methods.quantize import QUANTIZE, QuantizeOptions
from deploycheck.stages.model import Model
from tests.stages.networks import from_function

Stripes = tuple[np.ndarray, np.ndarray]

SIZE = 8
"""One size of arrays, so that each range is compiled once."""

weights = st.lists(st.floats(-100, 100, width=16), min_size=SIZE, max_size=SIZE).map(
    lambda numbers: np.array(numbers, np.float32)
)
largest_codes = st.sampled_from([1, 7, 127, 254])
thresholds = st.floats(0, 120, width=16)
ROUNDING = 1e-6
"""Of squared errors in float32, as a share of the sum of squares."""

laws = settings(max_examples=100, deadline=None)


def codes_of(array: np.ndarray, scale: jax.Array, threshold: float, largest: int) -> np.ndarray:
    return np.asarray(find_codes(jnp.asarray(array), scale, threshold, largest))


def fit(array: np.ndarray, largest: int) -> jax.Array:
    return scale_to_fit(jnp.asarray(array), largest)


def error(array: np.ndarray, scale: jax.Array, threshold: float, largest: int) -> float:
    restored = np.asarray(scale, np.float64) * codes_of(array, scale, threshold, largest)
    return float(np.square(restored - array).sum())


@given(weights, st.floats(2**-6, 10, width=16), thresholds, largest_codes)
@laws
def test_codes_are_integers_of_a_magnitude_below_the_range(
    array: np.ndarray, scale: float, threshold: float, largest: int
) -> None:
    codes = codes_of(array, jnp.full(1, scale), threshold, largest)
    np.testing.assert_array_equal(codes, np.rint(codes))
    assert np.abs(codes).max() <= largest


@given(weights, thresholds, largest_codes)
@laws
def test_what_is_less_than_the_threshold_is_zero(array: np.ndarray, threshold: float, largest: int) -> None:
    scale = fit(array, largest)
    codes, nearest = codes_of(array, scale, threshold, largest), codes_of(array, scale, 0.0, largest)
    small = np.abs(array) < threshold
    np.testing.assert_array_equal(codes[small], 0)
    np.testing.assert_array_equal(codes[~small], nearest[~small])


@given(weights, thresholds, largest_codes)
@laws
def test_weights_of_the_other_sign_have_codes_of_the_other_sign(
    array: np.ndarray, threshold: float, largest: int
) -> None:
    scale = fit(array, largest)
    codes = codes_of(array, scale, threshold, largest)
    np.testing.assert_array_equal(codes_of(-array, scale, threshold, largest), -codes)
    assert np.all(codes * array >= 0)


@given(weights, st.floats(2**-6, 10, width=16), thresholds, largest_codes)
@laws
def test_inside_the_range_the_error_is_half_a_step_or_the_threshold_at_most(
    array: np.ndarray, scale: float, threshold: float, largest: int
) -> None:
    inside = np.abs(array) <= scale * largest
    errors = np.abs(scale * codes_of(array, jnp.full(1, scale), threshold, largest) - array)[inside]
    assert np.all(errors <= max(threshold, scale / 2) * (1 + 1e-5))


@given(weights, largest_codes)
@laws
def test_the_scale_that_fits_gives_the_largest_weight_the_largest_code(array: np.ndarray, largest: int) -> None:
    codes = codes_of(array, fit(array, largest), 0.0, largest)
    assert np.abs(codes).max() == (largest if array.any() else 0)


@given(weights, st.sampled_from([(1, 7), (1, 127), (7, 14), (127, 254)]))
@laws
def test_a_range_that_has_all_values_of_a_smaller_one_has_no_larger_error(
    array: np.ndarray, ranges: tuple[int, int]
) -> None:
    # Of any two ranges this isn't so: of 1 and 0.5, both are multiples of 1/2, and 0.5 is none of 1/3.
    small, large = (error(array, fit(array, largest), 0.0, largest) for largest in ranges)
    assert large <= small + ROUNDING * float(np.square(array).sum())


@given(weights, thresholds, largest_codes)
@laws
def test_at_one_scale_no_threshold_has_a_smaller_error_than_half_of_it(
    array: np.ndarray, threshold: float, largest: int
) -> None:
    scale = fit(array, largest)
    least = error(array, scale, float(scale[0]) / 2 * (1 - 1e-6), largest)
    assert least == pytest.approx(error(array, scale, 0.0, largest))
    assert least <= error(array, scale, threshold, largest) + ROUNDING * float(np.square(array).sum())


@given(weights, largest_codes)
@laws
def test_the_scale_of_least_error_is_never_worse_than_the_one_that_fits(array: np.ndarray, largest: int) -> None:
    chosen = scale_of_least_error(jnp.asarray(array), largest)
    fitting = error(array, fit(array, largest), 0.0, largest)
    assert error(array, chosen, 0.0, largest) <= fitting * (1 + 1e-4) + 1e-6


def test_the_scale_of_least_error_cuts_an_outlier_off() -> None:
    array = np.random.default_rng(0).normal(size=4000).astype(np.float32)
    array[7] = 12.0
    chosen, fitting = scale_of_least_error(jnp.asarray(array), 3), fit(array, 3)
    assert error(array, chosen, 0.0, 3) < 0.4 * error(array, fitting, 0.0, 3)
    assert codes_of(array, chosen, 0.0, 3)[7] == 3
    # No scale close to it, which a finer search would find, is much better.
    nearby = [error(array, chosen * share, 0.0, 3) for share in np.linspace(0.9, 1.1, 41)]
    assert error(array, chosen, 0.0, 3) < 1.01 * min(nearby)


def run(model: Model, inputs: Any) -> np.ndarray:
    return np.asarray(model.apply(model.params, model.state, inputs)["logits"])


@pytest.mark.parametrize(
    ("levels", "dtype"), [(8, "int4"), (9, "int8"), (128, "int8"), (129, "int16"), (32768, "int16")]
)
def test_codes_are_stored_in_the_smallest_integers_that_hold_them(levels: int, dtype: str) -> None:
    model = from_function({"w": jnp.array([[1.0, -1.0, 0.1]])}, lambda params, x: x @ params["w"], (1,))
    params = quantize_with_dead_zone(model, levels=levels, threshold=0.2).params
    assert params["w/qvalue"].dtype == dtype
    np.testing.assert_array_equal(params["w/qvalue"].astype(int), [[levels - 1, 1 - levels, 0]])
    assert params["w/scale"].shape == (1, 1)


@pytest.mark.parametrize("threshold", [0.1, None])
def test_every_form_is_quantised_and_stays_close(
    threshold: float | None, builder: Callable[[int], Model], stripes: Stripes
) -> None:
    model, inputs = builder(0), {"image": stripes[0][:32]}
    small = quantize_with_dead_zone(model, levels=255, threshold=threshold)
    before, after = run(model, inputs), run(small, inputs)
    assert 0 < np.abs(before - after).max() < 0.1 * np.abs(before).max()
    kernels = {name for name, array in model.weights.items() if array.ndim > 1}
    assert set(small.weights) == (set(model.weights) - kernels) | {
        name + part for name in kernels for part in ("/qvalue", "/scale")
    }
    for name in set(model.weights) - kernels:
        np.testing.assert_array_equal(small.weights[name], model.weights[name])
    form = dead_zone_form(builder(1).form, levels=255)
    assert form.weights == small.form.weights
    np.testing.assert_array_equal(run(form.with_weights(small.weights), inputs), after)


def test_a_threshold_is_a_share_of_each_arrays_largest_magnitude() -> None:
    params = {"big": jnp.array([[100.0, 9.0, 11.0]]), "small": jnp.array([[0.01, -0.0009, -0.0011]])}
    model = from_function(params, lambda params, x: x @ (params["big"] * params["small"]), (1,))
    small = quantize_with_dead_zone(model, levels=101, threshold=0.1).params
    np.testing.assert_array_equal(small["big/qvalue"], [[100, 0, 11]])
    np.testing.assert_array_equal(small["small/qvalue"], [[100, 0, -11]])


def test_a_narrow_float_is_restored_as_what_it_was() -> None:
    kernel = jnp.linspace(-1, 1, 24, dtype=jnp.bfloat16).reshape(4, 6)
    model = from_function({"w": kernel}, lambda params, x: x.astype(params["w"].dtype) @ params["w"], (4,))
    small = quantize_with_dead_zone(model, levels=255, threshold=0.0)
    restored = run(small, {"x": np.eye(4, dtype=np.float32)})
    assert restored.dtype == jnp.bfloat16
    np.testing.assert_allclose(restored.astype(np.float32), kernel.astype(jnp.float32), atol=0.01)


def test_weights_that_are_all_zero_stay_so(stripes: Stripes) -> None:
    model = from_function({"w": jnp.zeros((36, 3))}, lambda params, x: x.reshape(-1, 36) @ params["w"], (6, 6, 1))
    for threshold in (0.1, None):
        small = quantize_with_dead_zone(model, levels=8, threshold=threshold)
        np.testing.assert_array_equal(run(small, {"x": stripes[0][:2]}), 0)


def test_a_model_without_weights_of_two_axes_is_refused() -> None:
    model = from_function({"gain": jnp.ones(4)}, lambda params, x: x * params["gain"], (4,))
    with pytest.raises(DeploycheckError, match=r"no weights have two axes or more.*gain \[4\]"):
        quantize_with_dead_zone(model, levels=8, threshold=0.1)


def test_a_model_that_is_quantised_already_is_refused(builder: Callable[[int], Model]) -> None:
    small = QUANTIZE.compress(builder(0), QuantizeOptions.model_validate({"weights": "int8", "at_least": "0 %"}), None)
    with pytest.raises(DeploycheckError, match="is quantised already"):
        quantize_with_dead_zone(small, levels=8, threshold=0.1)


def test_a_quantised_model_can_not_be_trained(builder: Callable[[int], Model], stripes: Stripes) -> None:
    small = quantize_with_dead_zone(builder(0), levels=8, threshold=0.1)
    with pytest.raises(DeploycheckError, match="a model with quantised weights can't be trained"):
        small.train(small.params, small.state, {"image": stripes[0][:2]}, jax.random.key(0))
