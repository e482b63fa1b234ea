"""Ranges of activations from examples of the training split."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.stages.examples import Examples
from deploycheck.stages.methods.quantize import QuantizeOptions
from deploycheck.stages.model import Model
from deploycheck.stages.quantization import quantize_weights, quantized_form
from deploycheck.stages.quantization.calibration import below_percentile, least_error
from tests.stages.networks import from_function
from tests.stages.quantization.making import options, products, run
from tests.stages.quantization.reached import PAIRS, STEPS, WIDTH, normal

METHODS = ("absmax", "percentile", "mse")


def static(method: str = "absmax", examples: int = 64, **others: Any) -> QuantizeOptions:
    return options(activations="int8", calibrate={"method": method, "examples": examples}, **others)


def examples_of(x: Any) -> Examples:
    return Examples({"x": np.asarray(x)}, np.zeros(len(x), np.int64))


def dense() -> Model:
    params = {"kernel": normal(WIDTH, 6), "head": normal(6, 4)}
    return from_function(params, lambda params, x: jax.nn.relu(x @ params["kernel"]) @ params["head"], (WIDTH,))


@pytest.mark.parametrize("method", METHODS)
def test_the_scale_of_an_activation_is_in_the_program_and_not_found_in_it(method: str) -> None:
    model, x = dense(), normal(100, WIDTH, seed=1)
    small = quantize_weights(model, static(method), examples_of(x))
    dynamic = quantize_weights(model, options(activations="int8"))
    texts = [jax.jit(it.apply).lower(it.params, it.state, {"x": x[:4]}).as_text() for it in (small, dynamic)]
    assert ["stablehlo.abs" in text for text in texts] == [False, True]  # of the activation's largest magnitude
    assert all("xi8>" in line for line in products(small, {"x": x[:4]}))
    exact, answers = run(model, {"x": x})["logits"], run(small, {"x": x})["logits"]
    assert 0 < float(jnp.abs(answers - exact).max()) < 0.1 * float(jnp.abs(exact).max())


def test_absmax_is_the_largest_magnitude_of_the_examples_asked_for() -> None:
    x = np.array(normal(100, WIDTH, seed=1))
    x[70] = 1000  # not among the first 64
    small = quantize_weights(dense(), static(), examples_of(x))
    np.testing.assert_allclose(small.params["kernel/input_scale"], np.abs(x[:64]).max() / 127.5, rtol=1e-6)


def test_a_rare_outlier_does_not_widen_the_range_of_a_percentile() -> None:
    x = np.array(normal(200, WIDTH, seed=1))
    x[3, 2] = 100
    scales = {
        method: float(quantize_weights(dense(), static(method, 200), examples_of(x)).params["kernel/input_scale"].max())
        for method in ("absmax", "percentile")
    }
    assert scales["percentile"] < 0.1 * scales["absmax"]


@pytest.mark.parametrize("name", ["recurrent", "lstm", "stacked layers", "indexed layers", "while", "heads"])
def test_activations_are_calibrated_wherever_a_weight_is(name: str) -> None:
    make, shape = PAIRS[name]
    params, apply, flat, plain = make()
    x = normal(64, *shape, seed=1)
    made = [
        quantize_weights(from_function(*form, shape), static(), examples_of(x))
        for form in ((params, apply), (flat, plain))
    ]
    answers, expected = (run(it, {"x": x[:5]})["logits"] for it in made)
    np.testing.assert_allclose(answers, expected, atol=1e-5)


def test_each_layer_of_a_scanned_model_has_a_range_of_its_own() -> None:
    params, apply, _, _ = PAIRS["stacked layers"][0]()
    params = {**params, "layers": params["layers"] * jnp.array([10.0, 1, 1])[:, None, None]}
    small = quantize_weights(from_function(params, apply, (WIDTH,)), static(), examples_of(normal(64, WIDTH, seed=1)))
    scales = small.params["layers/input_scale"]
    assert scales.shape == (3, 1, 1)
    assert float(scales[1, 0, 0]) > 3 * float(scales[0, 0, 0])


def test_a_convolution_is_calibrated_too() -> None:
    numbers = ("NHWC", "HWIO", "NHWC")

    def apply(params: Any, x: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, params["w"], (1, 1), "SAME", dimension_numbers=numbers)

    model, x = from_function({"w": normal(3, 3, 2, 4)}, apply, (STEPS, STEPS, 2)), normal(64, STEPS, STEPS, 2, seed=1)
    small = quantize_weights(model, static(), examples_of(x))
    np.testing.assert_allclose(small.params["w/input_scale"], np.abs(x).max() / 127.5, rtol=1e-6)
    np.testing.assert_allclose(run(small, {"x": x})["logits"], run(model, {"x": x})["logits"], atol=0.1)


def test_the_form_of_a_calibrated_model_is_made_without_examples() -> None:
    settings = static(keep=["head"])
    small = quantize_weights(dense(), settings, examples_of(normal(64, WIDTH, seed=1)))
    form = quantized_form(dense().form, settings)
    assert form.weights == small.form.weights
    x = {"x": normal(3, WIDTH)}
    np.testing.assert_array_equal(run(form.with_weights(small.weights), x)["logits"], run(small, x)["logits"])


def test_more_examples_than_there_are_is_an_error() -> None:
    with pytest.raises(DeploycheckError, match="64 examples are asked for, and the training split has 0"):
        quantize_weights(dense(), static(), examples_of(np.zeros((0, WIDTH), np.float32)))


def test_a_weight_that_no_example_reaches_is_named() -> None:
    with pytest.raises(DeploycheckError, match="no example has a number other than 0 for head, kernel"):
        quantize_weights(dense(), static(), examples_of(np.zeros((64, WIDTH), np.float32)))


def test_the_percentile_and_the_least_error_of_a_histogram() -> None:
    even = np.ones(1000)
    assert below_percentile(even) == pytest.approx(0.999, abs=0.002)
    assert least_error(even) > 0.95
    outlier = np.r_[np.full(100, 1000.0), np.zeros(899), 1.0]
    assert below_percentile(outlier) == pytest.approx(0.1, abs=0.002)
    assert least_error(outlier) < 1
