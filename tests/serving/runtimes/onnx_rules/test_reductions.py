from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from deploycheck.errors import DeploycheckError
from tests.serving.runtimes.onnx_rules.comparing import check, check_all, convert, floats, whole

X = floats(3, 4, 5)
TIES = whole(3, 4, 5, low=0, high=3)
REDUCTIONS = {
    "sum": lambda x: x.sum(axis=(1, 2)),
    "kept": lambda x: x.sum(axis=1, keepdims=True),
    "max": lambda x: x.max(axis=2),
    "min": lambda x: x.min(axis=1),
    "product": lambda x: x.prod(axis=2),
    "argmax": lambda x: x.argmax(axis=2),
    "argmin": lambda x: x.argmin(axis=1),
    "running_sum": lambda x: jnp.cumsum(x, axis=1),
    "running_sum_back": lambda x: lax.cumsum(x, axis=2, reverse=True),
    "running_product": lambda x: jnp.cumprod(x, axis=2),
    "running_max": lambda x: lax.cummax(x, axis=1),
    "running_min_back": lambda x: lax.cummin(x, axis=2, reverse=True),
    "sorted": lambda x: jnp.sort(x, axis=1),
    "order": lambda x: jnp.argsort(x, axis=2),
    "largest": lambda x: lax.top_k(x, 2)[0],
    "places_of_largest": lambda x: lax.top_k(x, 2)[1],
}


def test_reductions() -> None:
    statistics = {
        "mean": lambda x: x.mean(axis=(1, 2)),
        "deviation": lambda x: x.std(axis=1),
        "softmax": jax.nn.softmax,
        "log_softmax": jax.nn.log_softmax,
        "logsumexp": lambda x: jax.nn.logsumexp(x, axis=1),
        "norm": lambda x: jnp.linalg.norm(x, axis=2),
        "median": lambda x: jnp.median(x, axis=2),
    }
    check_all(REDUCTIONS | statistics, X, atol=1e-5)


def test_reductions_of_whole_numbers() -> None:
    check_all(REDUCTIONS, TIES)
    check_all({name: REDUCTIONS[name] for name in ("max", "min", "argmax", "sorted", "order")}, TIES.astype(np.int8))


def test_reductions_of_bools() -> None:
    check_all({"any": lambda x: x.any(axis=1), "all": lambda x: x.all(axis=2), "count": lambda x: x.sum(axis=1)}, X > 0)


def test_nan_is_what_reductions_give_where_there_is_one() -> None:
    numbers = X.copy()
    numbers[0, 1, 2:4] = np.nan
    numbers[1, 2, 0] = np.inf
    names = ("max", "min", "argmax", "argmin", "sum")
    check_all({name: REDUCTIONS[name] for name in names}, numbers, atol=1e-5)


def test_reductions_of_no_numbers_and_along_the_batch() -> None:
    check(lambda x: x[:, :, :0].sum(axis=2), X)
    check(lambda x: x - x.max(axis=0), X)


@settings(max_examples=15, deadline=None)
@given(
    window=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    padding=st.one_of(
        st.sampled_from(["SAME", "VALID"]), st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2)
    ),
)
def test_pooling(window: tuple[int, int], strides: tuple[int, int], padding: object) -> None:
    image = floats(2, 7, 6, 3)
    pads = padding if isinstance(padding, str) else ((0, 0), *padding, (0, 0))
    whole_window, steps = (1, *window, 1), (1, *strides, 1)
    check_all(
        {
            name: lambda x, start=start, function=function: lax.reduce_window(
                x, start, function, whole_window, steps, pads
            )
            for name, start, function in (("max", -np.inf, lax.max), ("min", np.inf, lax.min), ("sum", 0.0, lax.add))
        },
        image,
        atol=1e-5,
    )


def test_pooling_along_other_axes() -> None:
    check_all(
        {
            "average": lambda x: nnx.avg_pool(x, (2, 2), strides=(2, 2)),
            "average_of_what_is_there": lambda x: nnx.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False),
            "one": lambda x: nnx.max_pool(x[:, :, 0], (2,), strides=(2,)),
            "last": lambda x: lax.reduce_window(x, -np.inf, lax.max, (1, 1, 1, 2), (1, 1, 1, 1), "VALID"),
            "three": lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 2), (1, 1, 1, 2), "VALID"),
            "apart": lambda x: lax.reduce_window(
                x, -np.inf, lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "VALID", (1, 2, 1, 1), (1, 1, 2, 1)
            ),
        },
        floats(2, 6, 6, 4),
        atol=1e-5,
    )


def test_what_has_no_form_is_named() -> None:
    with pytest.raises(DeploycheckError, match=r"operations can.t: reduce_window_max \(of int32\)"):
        convert(
            {"y": lambda x: lax.reduce_window(x, np.iinfo(np.int32).min, lax.max, (1, 2, 2), (1, 1, 1), "VALID")}, TIES
        )
