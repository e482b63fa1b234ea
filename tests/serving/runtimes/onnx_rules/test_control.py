from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.serving.runtimes.onnx_rules.comparing import check, check_all, convert, floats, whole

X = floats(3, 5, 4)
CELL = floats(4, 4, scale=0.5)


def recurrent(x: Any, *, reverse: bool = False) -> Any:
    def step(state: Any, row: Any) -> Any:
        new = jnp.tanh(state @ CELL + row)
        return new, (new.sum(axis=1), new > 0)

    return lax.scan(step, jnp.zeros((x.shape[0], 4)), x.swapaxes(0, 1), reverse=reverse)


def test_scans() -> None:
    check(lambda x: recurrent(x)[0], X)
    check(lambda x: [each.swapaxes(0, 1) for each in recurrent(x)[1]], X)
    check(lambda x: [each.swapaxes(0, 1) for each in recurrent(x, reverse=True)[1]], X)
    assert "Scan" in {node.op_type for node in convert({"y": lambda x: recurrent(x)[0]}, X).graph.node}


def test_loops_of_a_fixed_length() -> None:
    check(lambda x: lax.fori_loop(0, 4, lambda at, y: y * 0.5 + at, x), X)
    check(lambda x: lax.scan(lambda y, _: (jnp.sin(y), None), x, None, length=3)[0], X)


def test_loops_that_end_when_a_condition_does() -> None:
    def halved(x: Any) -> Any:
        return lax.while_loop(lambda pair: pair[0].max() > 1, lambda pair: (pair[0] / 2, pair[1] + 1), (x, 0))

    check_all({"numbers": lambda x: halved(x)[0], "rounds": lambda x: halved(x)[1] + jnp.zeros((x.shape[0],), int)}, X)


def test_a_loop_that_never_begins() -> None:
    check(lambda x: lax.while_loop(lambda y: y.max() > 1e9, lambda y: y * 2, x), X)


def test_branches() -> None:
    def chosen(x: Any, which: Any) -> Any:
        return lax.switch(which[0], [lambda y: y, lambda y: y @ CELL, lambda y: jnp.zeros_like(y)], x)

    for which in (-1, 0, 1, 2, 7):
        check(chosen, X, np.full(3, which, np.int32))
    check(lambda x: lax.cond(x.max() > 0, jnp.sin, jnp.cos, x), X)


def test_what_is_within_loops_and_calls() -> None:
    @jax.checkpoint
    def block(x: Any) -> Any:
        return jax.nn.relu(x @ CELL)

    @jax.custom_vjp
    def clipped(x: Any) -> Any:
        return jnp.clip(x, 0, 1)

    clipped.defvjp(lambda x: (clipped(x), None), lambda _, g: (g,))

    def body(at: Any, x: Any) -> Any:
        return clipped(block(lax.cond(x.max() > 0.5, jax.jit(block), lambda y: y + at, x)))

    check(lambda x: lax.fori_loop(0, 3, body, x), X)


def test_a_loop_over_tokens_looks_them_up() -> None:
    table = floats(7, 4, scale=0.3)

    def step(state: Any, token: Any) -> Any:
        return jnp.tanh(state @ CELL + jnp.take(table, token, axis=0)), None

    check(lambda at: lax.scan(step, jnp.zeros((at.shape[0], 4)), at.T)[0], whole(3, 6, low=0, high=7))


def test_of_branches_for_kinds_of_devices_the_general_one_is_taken() -> None:
    def chosen(x: Any) -> Any:
        return lax.platform_dependent(x, cpu=lambda y: 2 * y + 0.0, default=lambda y: y + y)

    check(chosen, X)
    operators = [node.op_type for node in convert({"y": chosen}, X).graph.node]
    assert operators == ["Add", "Identity"]
