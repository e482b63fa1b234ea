"""Weights that are rounded by GPTQ."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deploycheck.errors import DeploycheckError
from deploycheck.stages.examples import Examples
from deploycheck.stages.methods.quantize import QuantizeOptions
from deploycheck.stages.model import Model
from deploycheck.stages.quantization import describe_rounding, gptq, quantize_weights, quantized_form
from deploycheck.stages.quantization.arithmetic import QuantizedWeight
from deploycheck.stages.quantization.gptq import BLOCK, DAMPING, with_feedback
from tests.stages.networks import from_function
from tests.stages.quantization.making import options, run
from tests.stages.quantization.reached import PAIRS, normal

ROWS, COLUMNS, COUNT = 16, 6, 64
NUMBERS = ("NHWC", "HWIO", "NHWC")

Array = np.ndarray


def by_gptq(examples: int = COUNT, weights: str = "int4", **others: Any) -> QuantizeOptions:
    return options(weights, gptq={"examples": examples}, **others)


def examples_of(x: Any) -> Examples:
    return Examples({"x": np.asarray(x)}, np.zeros(len(x), np.int64))


def correlated(count: int, *shape: int, seed: int = 0) -> Array:
    """Return inputs that are mixtures of few directions, and a little noise."""
    random, size = np.random.default_rng(seed), int(np.prod(shape))
    mixed = random.normal(size=(count, 3)) @ random.normal(size=(3, size)) + 0.1 * random.normal(size=(count, size))
    return mixed.reshape(count, *shape).astype(np.float32)


def dense() -> Model:
    return from_function({"w": normal(ROWS, COLUMNS)}, lambda params, x: x @ params["w"], (ROWS,))


def nearest(weight: Array, scales: Array, highest: int = 7) -> Array:
    codes: Array = np.round(weight / scales).clip(-highest, highest)
    return codes


def by_the_paper(weight: Array, scales: Array, squares: Array, highest: int = 7) -> tuple[Array, float]:
    """Return codes as equations 2 and 3 of the paper find them: each row's inverse Hessian is that of those left.

    The second is how far the nearest of all numbers that were rounded was from half-way between two codes.
    """
    left, rows = weight.astype(np.float64), len(weight)
    damped = squares + DAMPING * np.diag(squares).mean() * np.eye(rows)
    codes, margin = np.zeros(weight.shape), 1.0
    for row in range(rows):
        inverse = np.linalg.inv(2 * damped[row:, row:])
        exact = (left[row] / scales[row]).clip(-highest, highest)
        codes[row] = np.round(exact)
        margin = min(margin, float(np.abs(np.abs(exact - codes[row]) - 0.5).min()))
        error = (left[row] - codes[row] * scales[row]) / inverse[0, 0]
        left[row:] -= np.outer(inverse[:, 0], error)
    return codes, margin


seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int) -> tuple[Array, Array, Array]:
    """Return a weight, a scale for each of its numbers, and correlated inputs."""
    weight = np.random.default_rng(seed).normal(size=(32, 16)).astype(np.float32)
    scales = np.broadcast_to(np.abs(weight).max(axis=0) / 7.5, weight.shape).astype(np.float32)
    return weight, scales, correlated(COUNT, 32, seed=seed)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_codes_are_those_of_the_papers_loop(seed: int) -> None:
    weight, scales, x = drawn(seed)
    expected, margin = by_the_paper(weight, scales, x.T.astype(np.float64) @ x)
    assume(margin > 1e-3)  # half-way between two codes, float32 may choose the other
    np.testing.assert_array_equal(with_feedback(weight, scales, x.T @ x, 7), expected)


def test_more_rows_than_a_block_are_rounded_as_in_one() -> None:
    rows = BLOCK + 20
    weight, x = np.asarray(normal(rows, 2)), correlated(300, rows)
    scales = np.full_like(weight, np.abs(weight).max() / 7.5)
    found = np.asarray(with_feedback(weight, scales, x.T @ x, 7))
    expected, _ = by_the_paper(weight, scales, x.T.astype(np.float64) @ x)
    assert found.shape == (rows, 2)
    np.testing.assert_array_equal(found, expected)
    assert (found[BLOCK:] != nearest(weight, scales)[BLOCK:]).any()


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_the_output_error_is_less_than_that_of_rounding_to_nearest(seed: int) -> None:
    weight, scales, x = drawn(seed)
    codes = np.asarray(with_feedback(weight, scales, x.T @ x, 7))
    errors = [np.square(x @ (weight - it * scales)).sum() for it in (codes, nearest(weight, scales))]
    assert errors[0] < 0.9 * errors[1]


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_inputs_that_say_nothing_of_each_other_leave_rounding_to_nearest(seed: int) -> None:
    weight, scales, _ = drawn(seed)
    squares = np.diag(np.random.default_rng(seed).uniform(0, 9, len(weight))).astype(np.float32)
    np.testing.assert_array_equal(with_feedback(weight, scales, squares, 7), nearest(weight, scales))


@pytest.mark.parametrize("weights", ["int4", "int8"])
@pytest.mark.parametrize("per", ["tensor", "channel", {"group": 4}], ids=str)
def test_only_the_codes_differ_from_rounding_to_nearest(per: Any, weights: str) -> None:
    model, x = dense(), correlated(COUNT, ROWS)
    small = quantize_weights(model, by_gptq(weights=weights, per=per), examples_of(x))
    plain = quantize_weights(model, options(weights, per=per))
    assert (
        small.form.weights
        == plain.form.weights
        == quantized_form(model.form, by_gptq(weights=weights, per=per)).weights
    )
    np.testing.assert_array_equal(small.params["w/scale"], plain.params["w/scale"])
    exact = run(model, {"x": x})["logits"]
    errors = [float(jnp.square(run(it, {"x": x})["logits"] - exact).sum()) for it in (small, plain)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("name", ["lstm", "stacked layers", "transposed", "left operand"])
def test_a_weight_has_the_same_codes_wherever_it_is(name: str) -> None:
    make, shape = PAIRS[name]
    params, apply, flat, plain = make()
    x = correlated(COUNT, *shape)
    models = [from_function(*form, shape) for form in ((params, apply), (flat, plain))]
    found, expected = (quantize_weights(it, by_gptq(), examples_of(x)) for it in models)
    answers = run(found, {"x": x[:5]})["logits"]
    np.testing.assert_allclose(answers, run(expected, {"x": x[:5]})["logits"], atol=1e-5)
    at_once = run(quantize_weights(models[0], options("int4")), {"x": x[:5]})["logits"]
    assert float(jnp.abs(answers - at_once).max()) > 1e-4


def test_each_layer_of_a_scanned_model_has_inputs_of_its_own() -> None:
    params, apply, _, _ = PAIRS["stacked layers"][0]()
    x = correlated(COUNT, 8)
    model = from_function({**params, "biases": params["biases"].at[0].set(-1000)}, apply, (8,))  # gelu gives 0
    found = quantize_weights(model, by_gptq(), examples_of(x)).params["layers/qvalue"]
    at_once = quantize_weights(model, options("int4")).params["layers/qvalue"]
    assert [bool((one != other).any()) for one, other in zip(found, at_once, strict=True)] == [True, False, True]


@pytest.mark.parametrize("kernel", ["HWIO", "OIHW"])
def test_a_convolution_is_a_product_of_its_patches(kernel: str) -> None:
    def convolve(params: Any, x: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, params["w"], (2, 1), "SAME", dimension_numbers=("NHWC", kernel, "NHWC"))

    # Rows are in the order of the kernel's own axes.
    order, places = (["HWIO".index(axis) for axis in kernel], (kernel.index("H") and -1) or -2)

    def multiply(params: Any, x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), (0, 1), (1, 1), (0, 0)))
        patches = [x[:, i : i + 5 : 2, j : j + 6] for i in range(3) for j in range(3)]
        return jnp.stack(patches, axis=places).reshape(*patches[0].shape[:-1], -1) @ params["w"]

    weight, x = normal(3, 3, 2, 4), correlated(COUNT, 6, 6, 2)
    in_rows = [axis for axis in order if axis != 3] + [3]
    model = from_function({"w": weight.transpose(order)}, convolve, (6, 6, 2))
    product = from_function({"w": weight.transpose(in_rows).reshape(18, 4)}, multiply, (6, 6, 2))
    np.testing.assert_allclose(convolve(model.params, x), multiply(product.params, x), atol=1e-5)
    of_model, of_product = (
        np.asarray(quantize_weights(it, by_gptq(), examples_of(x)).params["w/qvalue"], np.int8)
        for it in (model, product)
    )
    output_last = [axis for axis in range(4) if order[axis] != 3] + [order.index(3)]
    np.testing.assert_array_equal(of_model.transpose(output_last).reshape(18, 4), of_product)
    assert (of_model != np.asarray(quantize_weights(model, options("int4")).params["w/qvalue"], np.int8)).any()


def test_what_has_no_such_product_is_rounded_to_nearest_and_named() -> None:
    def apply(params: Any, x: jax.Array) -> jax.Array:
        x = jax.lax.conv_general_dilated(
            x, params["depthwise"], (1, 1), "SAME", dimension_numbers=NUMBERS, feature_group_count=2
        )
        return x.reshape(x.shape[0], -1) @ params["head"]

    params = {"depthwise": normal(3, 3, 1, 2), "head": normal(32, 3)}
    model, x = from_function(params, apply, (4, 4, 2)), correlated(COUNT, 4, 4, 2)
    small, plain = quantize_weights(model, by_gptq(), examples_of(x)), quantize_weights(model, options("int4"))
    np.testing.assert_array_equal(small.params["depthwise/qvalue"], plain.params["depthwise/qvalue"])
    expected = "1 of 2 quantised weights are not what rounding to nearest gives; to nearest: depthwise"
    assert describe_rounding(model, small) == expected
    assert describe_rounding(model, plain) == ""


@pytest.mark.parametrize("dilation", ["rhs_dilation", "lhs_dilation"])
def test_a_convolution_with_gaps_has_the_patches_that_it_sees(dilation: str) -> None:
    size = 5 if dilation == "rhs_dilation" else 2

    def convolve(params: Any, x: jax.Array) -> jax.Array:
        gaps = {dilation: (2, 2)}
        return jax.lax.conv_general_dilated(x, params["w"], (1, 1), [(0, 0)] * 2, dimension_numbers=NUMBERS, **gaps)

    def multiply(params: Any, x: jax.Array) -> jax.Array:
        seen = x[:, ::2, ::2] if size == 5 else jnp.zeros((len(x), 3, 3, 2)).at[:, ::2, ::2].set(x)
        return seen.reshape(len(x), 1, 1, 18) @ params["w"]

    weight, x = normal(3, 3, 2, 4), correlated(COUNT, size, size, 2)
    np.testing.assert_allclose(convolve({"w": weight}, x), multiply({"w": weight.reshape(18, 4)}, x), atol=1e-5)
    models = [
        from_function({"w": weight}, convolve, x.shape[1:]),
        from_function({"w": weight.reshape(18, 4)}, multiply, x.shape[1:]),
    ]
    found, expected = (
        np.asarray(quantize_weights(it, by_gptq(), examples_of(x)).params["w/qvalue"], np.int8) for it in models
    )
    np.testing.assert_array_equal(found.reshape(18, 4), expected)


def test_a_weight_with_too_many_rows_is_rounded_to_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gptq, "MOST_ROWS", ROWS - 1)
    params = {"first": normal(ROWS, COLUMNS), "second": normal(COLUMNS, 4)}
    model = from_function(params, lambda params, x: (x @ params["first"]) @ params["second"], (ROWS,))
    small = quantize_weights(model, by_gptq(), examples_of(correlated(COUNT, ROWS)))
    assert describe_rounding(model, small).endswith("; to nearest: first")


def test_only_as_many_examples_as_asked_for_are_seen() -> None:
    x = correlated(2 * COUNT, ROWS)
    changed = x.copy()
    changed[COUNT:] = np.nan
    found = [quantize_weights(dense(), by_gptq(), examples_of(it)).params["w/qvalue"] for it in (x, changed)]
    np.testing.assert_array_equal(*found)


def test_activations_are_calibrated_on_the_codes_that_are_served() -> None:
    settings = by_gptq(activations="int8", calibrate={"examples": COUNT})
    params = {"first": normal(ROWS, COLUMNS), "second": normal(COLUMNS, 4)}
    model = from_function(params, lambda params, x: (x @ params["first"]) @ params["second"], (ROWS,))
    x = correlated(COUNT, ROWS)
    small = quantize_weights(model, settings, examples_of(x))
    first = QuantizedWeight.of(small.params["first/qvalue"], small.params["first/scale"]).dequantized
    np.testing.assert_allclose(
        small.params["second/input_scale"].max(), float(jnp.abs(x @ first).max()) / 127.5, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.ones((COUNT - 1, ROWS), np.float32), "`gptq`: 64 examples are asked for, and the training split has 63"),
        (np.zeros((0, ROWS), np.float32), "`gptq`: 64 examples are asked for, and the training split has 0"),
        (np.zeros((COUNT, ROWS), np.float32), "`gptq`: no weight of a product"),
        (
            np.full((COUNT, ROWS), np.nan, np.float32),
            "`gptq`: on the first 64 training examples the inputs of w are not finite",
        ),
    ],
)
def test_examples_that_say_nothing_are_an_error(x: Array, says: str) -> None:
    with pytest.raises(DeploycheckError, match=says):
        quantize_weights(dense(), by_gptq(), examples_of(x))
