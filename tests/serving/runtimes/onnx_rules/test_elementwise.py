from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.serving.runtimes.onnx_rules.comparing import check, check_all, convert, floats, run, whole

X, Y = floats(4, 5), floats(4, 5, seed=1)
SPECIAL = np.array([[np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e30, 1e-30, 0.5, -2.5, 1.5, 3.7]], np.float32).T
INTEGERS = ("int8", "int16", "int32", "uint8", "uint16", "uint32")

UNARY: dict[str, Callable[[Any], Any]] = {
    **{name: getattr(lax, name) for name in ("exp", "tanh", "floor", "ceil", "abs", "sign", "neg", "sin", "cos")},
    **{name: getattr(lax, name) for name in ("logistic", "erf", "erfc", "expm1", "square", "tan", "atan", "asinh")},
    **{name: getattr(lax, name) for name in ("exp2", "cbrt", "is_finite", "stop_gradient", "sinh", "cosh")},
    "round_even": lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN),
    "round_away": lambda x: lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO),
    "cube": lambda x: x**3,
    "seventh": lambda x: lax.integer_pow(x, 7),
    "inverse_square": lambda x: lax.integer_pow(x, -2),
    "to_the_zeroth": lambda x: lax.integer_pow(x, 0),
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "gelu_erf": lambda x: jax.nn.gelu(x, approximate=False),
    "silu": jax.nn.silu,
    "elu": jax.nn.elu,
    "softplus": jax.nn.softplus,
    "clip": lambda x: jnp.clip(x, -1.0, 2.0),
    "clamp_by_rows": lambda x: lax.clamp(jnp.arange(5.0) * jnp.ones_like(x) - 3, x, 2.0 + jnp.ones_like(x)),
    "nan_to_num": jnp.nan_to_num,
    "as_int": lambda x: x.astype(jnp.int32),
    "as_bool": lambda x: x.astype(bool),
    "through_bfloat16": lambda x: (x.astype(jnp.bfloat16)).astype(jnp.float32),
    "through_float16": lambda x: (x.astype(jnp.float16)).astype(jnp.float32),
    "through_float8": lambda x: jnp.clip(x, -8, 8).astype(jnp.float8_e4m3fn).astype(jnp.float32),
    "reduced": lambda x: lax.reduce_precision(x, 8, 7),
    "not_reduced": lambda x: lax.reduce_precision(x, 8, 23),
    "barrier": lambda x: lax.optimization_barrier((x, x + 1))[1],
}
POSITIVE = {name: getattr(lax, name) for name in ("log", "log1p", "sqrt", "rsqrt", "acosh")}
SMALL = {name: getattr(lax, name) for name in ("asin", "acos", "atanh", "log1p", "expm1")}
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    **{name: getattr(lax, name) for name in ("add", "sub", "mul", "div", "rem", "max", "min")},
    **{name: getattr(lax, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    "atan2": lax.atan2,
    "where": lambda x, y: jnp.where(x > y, x, y),
    "where_a_scalar": lambda x, y: jnp.where(x > 0, 1.0, y),
    "power": lambda x, y: jnp.power(jnp.abs(x) + 0.1, y),
    "rows": lambda x, y: x - y.mean(axis=1, keepdims=True),
    "columns": lambda x, y: x * jnp.arange(5.0) + y[:1],
}


def named(table: dict[str, Callable[..., Any]], *names: str) -> dict[str, Callable[..., Any]]:
    return {name: table[name] for name in names}


def test_functions_of_one_array() -> None:
    check_all(UNARY, X)


def test_functions_of_positive_numbers() -> None:
    check_all(POSITIVE, np.abs(X) + 1)


def test_functions_near_zero() -> None:
    small = np.array([[1e-7, -3e-6, 1e-4, 0.3, -0.4, 0.0]], np.float32)
    check_all(SMALL, small)
    check_all(named(SMALL, "log1p", "expm1"), small, atol=1e-12)


def test_functions_of_two_arrays() -> None:
    check_all(BINARY, X, Y)


def test_special_numbers() -> None:
    check_all(
        named(
            UNARY, "exp", "tanh", "logistic", "relu", "nan_to_num", "expm1", "clip", "is_finite", "abs", "sign", "erf"
        ),
        SPECIAL,
    )
    check_all(named(POSITIVE, "log1p", "sqrt", "rsqrt", "log"), SPECIAL)
    check_all(named(BINARY, "max", "min", "add", "div", "eq", "lt", "where"), SPECIAL, SPECIAL[::-1].copy())


@pytest.mark.parametrize("dtype", INTEGERS)
def test_whole_numbers(dtype: str) -> None:
    low = 0 if dtype.startswith("u") else -100
    functions = named(BINARY, "add", "sub", "mul", "max", "min", "eq", "lt", "ge", "where")
    check_all(functions, *(whole(6, 7, seed=seed, low=low, high=120, dtype=dtype) for seed in (0, 1)))


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint8"])
def test_whole_numbers_are_divided_towards_zero_and_by_zero_as_by_xla(dtype: str) -> None:
    low = 0 if dtype.startswith("u") else -9
    numbers = [whole(9, 9, seed=seed, low=low, high=9, dtype=dtype) for seed in (0, 1)]
    assert not numbers[1].all()
    check_all(named(BINARY, "div", "rem"), *numbers)


def test_bits() -> None:
    functions = (jnp.bitwise_and, jnp.bitwise_or, jnp.bitwise_xor, lax.shift_left, lax.shift_right_logical)
    numbers = whole(3, 8, low=0, high=99), whole(3, 8, seed=1, low=0, high=5)
    check(lambda x, y: [function(x, y) for function in functions], *numbers)
    check(lax.shift_right_arithmetic, numbers[0] - 50, numbers[1])


def test_bools() -> None:
    functions = (jnp.logical_and, jnp.logical_or, jnp.logical_xor, lax.max, lax.min, lax.eq)
    pair = X > 0, Y > 0
    check(lambda a, b: [function(a, b) for function in functions], *pair)
    check(lambda a, b: (~a, jnp.where(a, b, ~b), a.astype(jnp.float32)), *pair)


def test_a_case_is_chosen_by_its_number() -> None:
    check(lambda which, x, y: lax.select_n(which, x, y, x * y, x - y), whole(4, 5, low=0, high=4), X, Y)


def test_numbers_that_do_not_fit_become_the_nearest_that_do() -> None:
    numbers = np.array([[-1e30, -3e9, -129.5, -1.9, -0.5, 0.5, 127.5, 128.0, 255.9, 3e9, 5e9, 1e30]], np.float32)
    check(lambda x: [x.astype(dtype) for dtype in INTEGERS], numbers)


def test_conversions_between_whole_numbers_keep_the_low_bits() -> None:
    numbers = np.array([[-300, -129, -1, 0, 127, 128, 255, 256, 70000]], np.int32)
    check(lambda x: [x.astype(dtype) for dtype in ("int8", "uint8", "int16", "uint32", "float32")], numbers)


def test_a_function_of_float64() -> None:
    with jax.enable_x64(True):
        numbers = floats(4, 5).astype(np.float64)
        check(lambda x: jnp.tanh(x @ jnp.ones((5, 3))) + jnp.log1p(jnp.exp(-jnp.abs(x)))[:, :3], numbers, rtol=1e-12)


def test_float16_goes_in_and_out_as_such() -> None:
    numbers = X.astype(np.float16)
    found = run(convert({"twice": lambda x: x * 2}, numbers), numbers)["twice"]
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, numbers * 2)
