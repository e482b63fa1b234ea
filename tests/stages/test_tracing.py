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

    def unstack(self, value: Any) -> tuple[Any, Callable[[Any], Any]]:
        return (value.array, Tagged) if isinstance(value, Tagged) else (value, lambda array: array)

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


def scanning(weights: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, jax.Array]:
    def step(carry: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
        carry = jnp.tanh(carry + row @ weights["kernel"])
        return carry, carry.sum()

    last, sums = jax.lax.scan(step, weights["bias"], inputs["x"], reverse=True)
    return {"last": last, "sums": sums}


def scanning_layers(weights: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, jax.Array]:
    def step(y: jax.Array, layer: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.tanh(layer @ weights["kernel"].T @ weights["kernel"]) + y, y

    last, rows = jax.lax.scan(step, inputs["y"], jnp.stack([inputs["y"], inputs["y"] + 1]))
    return {"last": last, "rows": rows}


def looping(weights: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, jax.Array]:
    """A loop whose state has what it doesn't change: the kernel."""

    def step(state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        count, kernel, x = state
        return count + 1, kernel, jnp.tanh(x @ kernel @ kernel.T)

    start = (0, weights["kernel"], inputs["x"])
    count, kernel, x = jax.lax.while_loop(lambda state: (state[2].sum() < 90) & (state[0] < 3), step, start)
    return {"x": x, "kernel": kernel, "count": count}


def branching(weights: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, jax.Array]:
    def chosen(flag: jax.Array) -> jax.Array:
        return jax.lax.cond(flag, lambda: inputs["x"] @ weights["kernel"], lambda: inputs["y"] + weights["bias"])

    return {"one": chosen(inputs["x"].sum() > 0), "other": chosen(inputs["x"].sum() < 0)}


@pytest.mark.parametrize("program", [scanning, scanning_layers, looping, branching])
def test_rules_are_used_in_the_bodies_of_loops_and_in_branches(program: Callable[..., Any]) -> None:
    rules = Noting()
    tagged = {name: Tagged(array) for name, array in WEIGHTS.items()}
    result, expected = evaluate(program, SHAPES, tagged, INPUTS, rules), program(WEIGHTS, INPUTS)
    assert any(rules.products)
    for name, array in expected.items():
        np.testing.assert_allclose(result[name], array, rtol=1e-6)


def test_a_loop_takes_apart_what_the_rules_have_in_place_of_its_layers() -> None:
    def layers(weights: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, jax.Array]:
        return {"x": jax.lax.scan(lambda x, layer: (x @ layer, None), inputs["x"], weights["layers"])[0]}

    weights = {"layers": jnp.linspace(-1, 1, 32).reshape(2, 4, 4)}
    rules = Noting()
    result = evaluate(layers, weights, {"layers": Tagged(weights["layers"])}, INPUTS, rules)
    assert rules.products == [True]
    np.testing.assert_allclose(result["x"], layers(weights, INPUTS)["x"], rtol=1e-6)


def test_a_choice_by_the_kind_of_device_is_left_to_jax() -> None:
    def chosen(weights: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, jax.Array]:
        def elsewhere(x: jax.Array) -> jax.Array:
            return x @ weights["kernel"] + 1

        return {"x": jax.lax.platform_dependent(inputs["x"], cpu=lambda x: x @ weights["kernel"], cuda=elsewhere)}

    tagged = {name: Tagged(array) for name, array in WEIGHTS.items()}
    result = jax.jit(lambda inputs: evaluate(chosen, SHAPES, tagged, inputs, Noting()))(INPUTS)
    np.testing.assert_allclose(result["x"], INPUTS["x"] @ WEIGHTS["kernel"], rtol=1e-6)


def test_what_has_no_rule_inside_is_evaluated_whole() -> None:
    def sines(weights: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, jax.Array]:
        relu = jax.nn.relu(inputs["x"])
        return {"x": jax.lax.scan(lambda x, bias: (x + bias, None), relu.sum(), weights["bias"])[0]}

    tagged = {name: Tagged(array) for name, array in WEIGHTS.items()}
    program = jax.make_jaxpr(lambda inputs: evaluate(sines, SHAPES, tagged, inputs, Noting()))(INPUTS)
    names = [equation.primitive.name for equation in program.eqns]
    assert "custom_jvp_call" in names
    assert "scan" in names


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
