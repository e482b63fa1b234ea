from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from deploycheck.errors import DeploycheckError
from tests.serving.runtimes.onnx_rules.comparing import check, check_all, convert, floats, whole

TABLE = floats(7, 4)
X = floats(3, 5, 4)
PLACES = whole(3, 5, low=0, high=5)


def test_lookups() -> None:
    """The numbers go beyond the table on both sides: the default is NaN there, and so are the defaults of models."""
    check_all(
        {
            "embedding": lambda at: jnp.take(TABLE, at, axis=0),
            "indexed": lambda at: jnp.asarray(TABLE)[at],
            "clipped": lambda at: jnp.take(TABLE, at, axis=0, mode="clip"),
            "wrapped": lambda at: jnp.take(TABLE, at, axis=0, mode="wrap"),
            "filled": lambda at: jnp.asarray(TABLE).at[at].get(mode="fill", fill_value=-1),
            "columns": lambda at: jnp.take(TABLE, at, axis=1),
            "whole_numbers": lambda at: jnp.take(TABLE.astype(np.int32), at, axis=0),
            "int8": lambda at: jnp.take(TABLE.astype(np.int8), at, axis=0),
            "one_hot": lambda at: jax.nn.one_hot(at, 6),
        },
        whole(3, 5, low=-9, high=10),
    )


def test_places_in_the_batch() -> None:
    check_all(
        {
            "along": lambda x, at: jnp.take_along_axis(x, at[:, :, None], axis=1),
            "along_the_last": lambda x, at: jnp.take_along_axis(x, at[:, :, None] % 4, axis=2),
            "of_each": lambda x, at: jax.vmap(lambda rows, row: rows[row[0]])(x, at),
            "pairs": lambda x, at: x[:, at[0], at[0] % 4],
            "separate": lambda x, at: x[:, at[0, :2], :, None][..., 0],
            "last_step": lambda x, at: x[jnp.arange(x.shape[0]), at[:, 0]],
            "windows": lambda x, at: jax.vmap(lambda rows, row: lax.dynamic_slice(rows, (row[0], 1), (2, 3)))(x, at),
            "fixed": lambda x, at: x[:, np.array([0, 3, 3]), 1:],
            "picked": lambda x, at: x[:, [1, 2]][:, :, [0, 3, 1]],
        },
        X,
        PLACES,
    )


def test_updates_at_places() -> None:
    check_all(
        {
            "set": lambda x, at: x.at[:, at[0, 0]].set(1.5),
            "added": lambda x, at: x.at[:, at[0], 1].add(2.0),
            "column": lambda x, at: x.at[:, :, 2].set(0.0),
            "multiplied": lambda x, at: x.at[:, at[0]].multiply(3.0),
            "at_most": lambda x, at: x.at[:, at[0]].min(0.5),
            "beyond": lambda x, at: x.at[:, at[0] + 3].set(9.0),
            "part": lambda x, at: x.at[:, 1:3, 1].add(x[:, :2, 0]),
        },
        X,
        np.array([[0, 2, 3, 1, 4]] * 3, np.int32),
    )


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_a_gather_of_any_kind(data: st.DataObject) -> None:
    """The windows of an array: some axes with a start, some left out, in any order, beyond the ends too."""
    table = floats(4, 3, 5)
    along = tuple(data.draw(st.permutations(range(3)))[: data.draw(st.integers(1, 3))])
    sizes = [data.draw(st.integers(1, table.shape[axis])) if axis in along else table.shape[axis] for axis in range(3)]
    left_out = tuple(axis for axis in range(3) if axis in along and sizes[axis] == 1 and data.draw(st.booleans()))
    kept = 3 - len(left_out)
    places = tuple(sorted(data.draw(st.permutations(range(1, kept + 1)))))
    numbers = lax.GatherDimensionNumbers(places, left_out, along)
    mode = data.draw(st.sampled_from(["clip", "fill"]))
    starts = whole(3, len(along), low=-2, high=6)
    check(lambda at: lax.gather(table, at, numbers, tuple(sizes), mode=mode), starts)


def test_what_has_no_form_is_named() -> None:
    def scattered(x: Any, at: Any) -> Any:
        return jax.vmap(lambda row, place: row.at[place].set(0.0))(x, at)

    with pytest.raises(DeploycheckError, match=r"operations can.t: scatter \(with axes of a batch\)"):
        convert({"y": scattered}, X, PLACES)
