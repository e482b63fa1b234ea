"""Branches and loops, and operators that are defined by others. Graphs among a node's attributes are functions here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deploycheck.errors import DeploycheckError
from deploycheck.stages.onnx.graph import FUNCTION, Node, Rule
from deploycheck.stages.onnx.values import array, is_known, number, size


def _function(node: Node, *values: Any) -> Any:
    return tuple(node.attributes["body"](*values))


def _if(node: Node, condition: Any) -> Any:
    """Evaluate the branch that is known to be taken, else both as a branch of the program."""
    branches = node.attributes["then_branch"], node.attributes["else_branch"]
    if is_known(condition):
        return tuple(branches[0 if number(condition, "condition") else 1]())
    then, other = ((lambda branch=branch: [jnp.asarray(array(each)) for each in branch()]) for branch in branches)
    return tuple(jax.lax.cond(jnp.reshape(condition, ()), then, other))


def _loop(node: Node, most: Any, condition: Any, *initial: Any) -> Any:
    """Repeat a body: a known number of times, or until its condition is false."""
    state = [jnp.asarray(array(each)) for each in initial]
    always = condition is None or (is_known(condition) and number(condition, "condition"))
    if always and most is not None and is_known(most) and _goes_on(node, state):
        return _repeat(node, size(number(most, "number of turns")), state)
    if len(node.outputs) > len(state):
        raise DeploycheckError("a loop that may end early can't collect what its turns give")
    return _repeat_while(node, most, condition, state)


def _goes_on(node: Node, state: list[Any]) -> bool:
    """Whether the body's condition is known to be true after each turn."""
    found: list[bool] = []

    def turn(number: Any, state: list[Any]) -> list[Any]:
        goes_on, *results = node.attributes["body"](number, np.asarray(True), *state)
        found.append(is_known(goes_on) and bool(goes_on.item()))
        return [jnp.asarray(array(each)) for each in results]

    jax.eval_shape(turn, jnp.int32(0), state)
    return found[0]


def _repeat(node: Node, turns: Any, state: list[Any]) -> Any:
    """Return the last state, and what each turn gives besides, stacked."""

    def step(state: list[Any], turn: Any) -> tuple[list[Any], list[Any]]:
        _, *results = node.attributes["body"](turn, np.asarray(True), *state)
        return _like(results[: len(state)], state), [jnp.asarray(array(each)) for each in results[len(state) :]]

    last, stacked = jax.lax.scan(step, state, jnp.arange(turns))
    return (*last, *stacked)


def _repeat_while(node: Node, most: Any, condition: Any, state: list[Any]) -> Any:
    """Return the last state."""
    limit = None if most is None else jnp.reshape(array(most), ())

    def goes_on(carry: tuple[Any, Any, list[Any]]) -> Any:
        turn, wanted, _ = carry
        return wanted if limit is None else wanted & (turn < limit)

    def step(carry: tuple[Any, Any, list[Any]]) -> tuple[Any, Any, list[Any]]:
        turn, wanted, state = carry
        after, *results = node.attributes["body"](turn, wanted, *state)
        return turn + 1, jnp.reshape(array(after), ()), _like(results, state)

    first = jnp.asarray(True) if condition is None else jnp.reshape(array(condition), ())
    return tuple(jax.lax.while_loop(goes_on, step, (jnp.int32(0), jnp.asarray(first), state))[2])


def _scan(node: Node, *values: Any) -> Any:
    """Repeat a body for each element along an axis of some inputs."""
    settings = node.attributes
    sequences = settings["num_scan_inputs"]
    given = [jnp.asarray(array(each)) for each in values]
    split = len(given) - sequences
    axes = settings.get("scan_input_axes") or (0,) * sequences
    backwards = settings.get("scan_input_directions") or (0,) * sequences
    stacked = [
        jnp.flip(each, 0) if back else each
        for each, back in zip(
            (jnp.moveaxis(each, axis, 0) for each, axis in zip(given[split:], axes, strict=True)),
            backwards,
            strict=True,
        )
    ]

    def step(state: list[Any], slices: list[Any]) -> tuple[list[Any], list[Any]]:
        results = settings["body"](*state, *slices)
        return _like(results[:split], state), [jnp.asarray(array(each)) for each in results[split:]]

    state, collected = jax.lax.scan(step, given[:split], stacked)
    out_axes = settings.get("scan_output_axes") or (0,) * len(collected)
    out_backwards = settings.get("scan_output_directions") or (0,) * len(collected)
    outputs = [
        jnp.moveaxis(jnp.flip(each, 0) if back else each, 0, axis)
        for each, axis, back in zip(collected, out_axes, out_backwards, strict=True)
    ]
    return (*state, *outputs)


def _like(results: list[Any], state: list[Any]) -> list[Any]:
    """Return the next state in the types of the one before."""
    return [jnp.asarray(array(each)).astype(before.dtype) for each, before in zip(results, state, strict=True)]


RULES: Mapping[str, Rule] = {FUNCTION: _function, "If": _if, "Loop": _loop, "Scan": _scan}
