from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deploycheck.stages.tracing import bind, evaluate

WEIGHTS = {"bias": jnp.linspace(-1, 1, 3), "kernel": jnp.linspace(-2, 2, 12).reshape(4, 3)}
SHAPES = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in WEIGHTS.items()}
INPUTS = {"x": jnp.linspace(-1, 3, 8).reshape(2, 4), "y": jnp.linspace(0, 1, 6).reshape(2, 3)}


def dense(weights: Mapping[str, Any], inputs: Mapping[str, Any]) -> jax.Array:
    return inputs["x"] @ weights["kernel"] + weights["bias"] * inputs["y"]


dense_with_jvp = jax.custom_jvp(dense)
dense_with_jvp.defjvp(lambda primals, tangents: (dense(*primals), dense(*tangents)))

dense_with_vjp = jax.custom_vjp(dense)
dense_with_vjp.defvjp(lambda *operands: (dense(*operands), operands), lambda operands, gradient: operands)


def straight(weights: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, jax.Array]:
    return {"out": dense(weights, inputs)}


def jitted(weights: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, jax.Array]:
    return {"out": jax.jit(dense)(weights, inputs)}


def nested(weights: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, jax.Array]:
    return {"out": jax.jit(lambda w, i: jax.jit(dense)(w, i) * 2)(weights, inputs)}


def with_custom_jvp(weights: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, jax.Array]:
    return {"out": jax.nn.relu(dense_with_jvp(weights, inputs))}


def with_custom_vjp(weights: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, jax.Array]:
    return {"out": dense_with_vjp(weights, inputs)}


def with_checkpoint(weights: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, jax.Array]:
    return {"out": jax.checkpoint(dense)(weights, inputs)}


def with_all(weights: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, jax.Array]:
    return {"out": jax.checkpoint(jax.jit(lambda w, i: jax.nn.relu(dense_with_jvp(w, i))))(weights, inputs)}


PROGRAMS: list[Callable[..., dict[str, jax.Array]]] = [
    straight,
    jitted,
    nested,
    with_custom_jvp,
    with_custom_vjp,
    with_checkpoint,
    with_all,
]


@dataclass
class Tagged:
    """A value that only the rules understand."""

    array: Any


@dataclass
class Noting:
    """Rules that leave a program as it is, and note which products have a weight among their operands."""

    primitives: frozenset[str] = frozenset({"dot_general"})
    products: list[bool] = field(default_factory=list)

    def plain(self, value: Any) -> Any:
        return value.array if isinstance(value, Tagged) else value

    def apply(self, equation: Any, operands: Sequence[Any]) -> Any:
        self.products.append(isinstance(operands[1], Tagged))
        return bind(equation, [self.plain(operand) for operand in operands])


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_evaluated_without_rules_gives_what_it_gives(program: Callable[..., Any]) -> None:
    result = evaluate(program, SHAPES, WEIGHTS, INPUTS, Noting(frozenset()))
    np.testing.assert_allclose(result["out"], program(WEIGHTS, INPUTS)["out"], rtol=1e-6)


@pytest.mark.parametrize("program", PROGRAMS)
def test_rules_see_weights_within_every_call(program: Callable[..., Any]) -> None:
    rules = Noting()
    tagged = {name: Tagged(array) for name, array in WEIGHTS.items()}
    result = evaluate(program, SHAPES, tagged, INPUTS, rules)
    assert rules.products == [True]
    np.testing.assert_allclose(result["out"], program(WEIGHTS, INPUTS)["out"], rtol=1e-6)


def test_an_evaluated_program_can_be_compiled() -> None:
    def run(weights: Any, inputs: Any) -> Any:
        return evaluate(with_all, SHAPES, weights, inputs, Noting())

    np.testing.assert_allclose(jax.jit(run)(WEIGHTS, INPUTS)["out"], with_all(WEIGHTS, INPUTS)["out"], rtol=1e-6)


def test_loops_and_branches_are_evaluated_whole() -> None:
    def looping(weights: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, jax.Array]:
        def step(carry: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
            carry = jnp.tanh(carry + row @ weights["kernel"])
            return carry, carry.sum()

        last, sums = jax.lax.scan(step, weights["bias"], inputs["x"])
        return {"last": jax.lax.cond(sums[0] > 0, jnp.sin, jnp.cos, last), "sums": sums}

    rules = Noting()
    tagged = {name: Tagged(array) for name, array in WEIGHTS.items()}
    result, expected = evaluate(looping, SHAPES, tagged, INPUTS, rules), looping(WEIGHTS, INPUTS)
    assert rules.products == []
    for name, array in expected.items():
        np.testing.assert_allclose(result[name], array, rtol=1e-6)


def test_a_weight_that_is_an_output_comes_out_as_an_array() -> None:
    tagged = {name: Tagged(array) for name, array in WEIGHTS.items()}
    result = evaluate(lambda w, i: {"bias": w["bias"], "one": jnp.ones(1)}, SHAPES, tagged, INPUTS, Noting())
    np.testing.assert_array_equal(result["bias"], WEIGHTS["bias"])
    np.testing.assert_array_equal(result["one"], [1])


def test_several_results_of_one_equation_are_kept_apart() -> None:
    def sorting(weights: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, jax.Array]:
        values, places = jax.lax.top_k(inputs["x"], 2)
        return {"values": values, "places": places}

    result, expected = evaluate(sorting, SHAPES, WEIGHTS, INPUTS, Noting()), sorting(WEIGHTS, INPUTS)
    for name, array in expected.items():
        np.testing.assert_array_equal(result[name], array)
