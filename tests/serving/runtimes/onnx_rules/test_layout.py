from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.core import max_dim

from tests.serving.runtimes.onnx_rules.comparing import check, check_all, floats, whole

X = floats(3, 4, 6)
LAYOUTS = {
    "reshaped": lambda x: x.reshape(x.shape[0], -1),
    "batch_in_the_middle": lambda x: x.transpose(1, 0, 2).reshape(2, 2, x.shape[0], 6).transpose(2, 0, 1, 3),
    "batch_joined": lambda x: jnp.sum((x.reshape(-1, 6) @ jnp.ones((6, 2))).reshape(x.shape[0], 4, 2), axis=1),
    "squeezed": lambda x: x[:, :1, :].squeeze(1),
    "expanded": lambda x: x[:, None] * jnp.arange(2.0)[:, None, None],
    "broadcast": lambda x: jnp.broadcast_to(x[:, :1], x.shape),
    "broadcast_twice": lambda x: x * lax.broadcast_in_dim(jnp.arange(6.0)[None], (1, 4, 6), (0, 2)),
    "tiled": lambda x: jnp.tile(x, (1, 2, 1)),
    "rows_of_ones": lambda x: jnp.ones((x.shape[0], 3)),
    "joined": lambda x: jnp.concatenate([x, 2 * x, x[:, :1]], axis=1),
    "joined_with_a_constant": lambda x: jnp.concatenate([jnp.zeros((x.shape[0], 1, 6)), x], axis=1),
    "stacked": lambda x: jnp.stack([x, -x], axis=1),
    "split": lambda x: jnp.split(x, 3, axis=2)[1],
    "reversed": lambda x: x[:, ::-1, ::-1],
    "steps": lambda x: x[:, 1:4:2, ::3],
    "last": lambda x: x[:, -1],
    "shifted": lambda x: jnp.roll(x, 1, axis=2),
    "padded": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 3)), constant_values=2.5),
    "padded_by_its_edge": lambda x: jnp.pad(x, ((0, 0), (1, 1), (0, 0)), mode="edge"),
    "padded_apart": lambda x: lax.pad(x, 7.0, ((0, 0, 0), (1, -1, 2), (-2, 1, 1))),
    "counted": lambda x: x + lax.broadcasted_iota(jnp.float32, (x.shape[0], 4, 6), 0),
    "lower": lambda x: jnp.tril(x),
    "at_a_fixed_place": lambda x: lax.dynamic_slice(x, (0, 2, 9), (x.shape[0], 2, 3)),
    "batch_as_a_number": lambda x: x / jnp.asarray(x.shape[0], jnp.float32),
    "twice_the_batch": lambda x: jnp.concatenate([x, x]).reshape(2, x.shape[0], 24)[1],
}


def test_where_numbers_go() -> None:
    check_all(LAYOUTS, X)


def test_whole_numbers_and_bools_go_there_too() -> None:
    names = ("reshaped", "joined", "reversed", "steps", "split", "batch_in_the_middle", "stacked")
    check_all({name: LAYOUTS[name] for name in names if name != "stacked"}, X > 0)
    for dtype in ("int8", "int32", "uint8"):
        check_all({name: LAYOUTS[name] for name in names}, whole(3, 4, 6, low=0, dtype=dtype))


@pytest.mark.parametrize("start", [-3, 0, 1, 5])
def test_a_window_is_moved_back_into_the_array(start: int) -> None:
    starts = np.full((3, 1), start, np.int32)

    def sliced(x: Any, starts: Any) -> Any:
        at = starts[0, 0]
        return lax.dynamic_slice(x, (0, at, at + 1), (x.shape[0], 2, 3))

    def updated(x: Any, starts: Any) -> Any:
        at = starts[0, 0]
        return lax.dynamic_update_slice(x, -jnp.ones((x.shape[0], 2, 3)), (0, at, at + 1))

    check_all({"sliced": sliced, "updated": updated}, X, starts)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(-1, 2), st.integers(-1, 2), st.integers(0, 2)]), min_size=2, max_size=2),
)
def test_padding_of_any_kind(config: list[tuple[int, int, int]]) -> None:
    check(lambda x: lax.pad(x, -1.5, ((0, 0, 0), *config)), X)


def test_an_array_without_numbers() -> None:
    check(lambda x: jnp.concatenate([x[:, :0], x[:, :1]], axis=1), X)
    check(lambda x: x[:, 2:2].reshape(x.shape[0], 0), X)


def test_a_size_may_depend_on_the_batch_in_any_way() -> None:
    def padded_to_two(x: Any) -> Any:
        count = x.shape[0]
        return jnp.pad(x, ((0, max_dim(count, 2) - count), (0, 0), (0, 0)))[:count] * 2

    def halves(x: Any) -> Any:
        return jnp.arange((x.shape[0] + 1) // 2, dtype=jnp.float32).sum() + 0 * x[:, 0, 0]

    check_all({"padded": padded_to_two, "halves": halves}, X)
