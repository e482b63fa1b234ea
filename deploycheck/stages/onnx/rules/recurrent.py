"""Recurrent layers, scanned along time. ``x`` is ``[time, batch, features]`` (``layout: 0``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from deploycheck.errors import DeploycheckError
from deploycheck.stages.onnx.graph import Node, Rule

ACTIVATIONS: Mapping[str, Callable[[Any], Any]] = {
    "Relu": jax.nn.relu,
    "Sigmoid": jax.nn.sigmoid,
    "Softsign": jax.nn.soft_sign,
    "Tanh": jnp.tanh,
}
Cell = Callable[[Any, Any, Any, Any], tuple[Any, Any]]
"""``cell(state, product, recurrent, bias) -> (state, output)``; ``product`` is the input's part of all gates."""


def _lstm(node: Node, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, *initial: Any) -> Any:
    """Return all hidden states, the last one, and the last cell state. The gates are input, output, forget, cell."""
    h0, c0, peepholes = (*initial, None, None, None)[:3]
    if peepholes is not None or node.attributes.get("input_forget"):
        raise DeploycheckError("peepholes and coupled gates aren't supported")

    def make(gates: list[Callable[[Any], Any]]) -> Cell:
        gate, candidate, squash = gates

        def cell(state: Any, product: Any, recurrent: Any, bias: Any) -> tuple[Any, Any]:
            hidden, memory = state
            i, o, f, c = jnp.split(product + hidden @ recurrent.T + sum(bias), 4, axis=-1)
            memory = gate(f) * memory + gate(i) * candidate(c)
            hidden = gate(o) * squash(memory)
            return (hidden, memory), hidden

        return cell

    return _run(node, make, ("Sigmoid", "Tanh", "Tanh"), x, w, r, b, lengths, (h0, c0))


def _gru(node: Node, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h0: Any = None) -> Any:
    """Return all hidden states, and the last one. The gates are update, reset, hidden."""
    outside = bool(node.attributes["linear_before_reset"])

    def make(gates: list[Callable[[Any], Any]]) -> Cell:
        gate, candidate = gates

        def cell(state: Any, product: Any, recurrent: Any, bias: Any) -> tuple[Any, Any]:
            (hidden,) = state
            size = hidden.shape[-1]
            given = product + bias[0]
            both = given[..., : 2 * size] + hidden @ recurrent[: 2 * size].T + bias[1][: 2 * size]
            z, reset = jnp.split(gate(both), 2, axis=-1)
            own, its_bias = recurrent[2 * size :].T, bias[1][2 * size :]
            part = reset * (hidden @ own + its_bias) if outside else (reset * hidden) @ own + its_bias
            hidden = (1 - z) * candidate(given[..., 2 * size :] + part) + z * hidden
            return (hidden,), hidden

        return cell

    return _run(node, make, ("Sigmoid", "Tanh"), x, w, r, b, lengths, (h0,))


def _rnn(node: Node, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h0: Any = None) -> Any:
    def make(gates: list[Callable[[Any], Any]]) -> Cell:
        (squash,) = gates

        def cell(state: Any, product: Any, recurrent: Any, bias: Any) -> tuple[Any, Any]:
            hidden = squash(product + state[0] @ recurrent.T + sum(bias))
            return (hidden,), hidden

        return cell

    return _run(node, make, ("Tanh",), x, w, r, b, lengths, (h0,))


def _run(
    node: Node,
    make: Callable[[list[Callable[[Any], Any]]], Cell],
    usual: tuple[str, ...],
    x: Any,
    w: Any,
    r: Any,
    b: Any,
    lengths: Any,
    initial: tuple[Any, ...],
) -> tuple[Any, ...]:
    """Scan each direction; return all outputs ``[time, directions, batch, hidden]`` and the last states."""
    settings = node.attributes
    if lengths is not None or settings.get("clip") or settings.get("layout"):
        raise DeploycheckError("lengths of sequences, `clip` and `layout: 1` aren't supported")
    names = settings.get("activations") or usual * r.shape[0]
    unknown = sorted(set(names) - ACTIVATIONS.keys())
    if unknown:
        raise DeploycheckError(f"the activations {', '.join(unknown)} aren't supported")
    batch, hidden = x.shape[1], r.shape[-1]
    zeros = jnp.zeros((r.shape[0], batch, hidden), x.dtype)
    starts = [zeros if each is None else each for each in initial]
    biases = jnp.zeros((r.shape[0], 2 * r.shape[1]), x.dtype) if b is None else b
    outputs, states = [], []
    for at in range(r.shape[0]):
        backwards = settings["direction"] == "reverse" or at == 1
        cell = make([ACTIVATIONS[name] for name in names[at * len(usual) : (at + 1) * len(usual)]])
        bias, recurrent = jnp.split(biases[at], 2), r[at]

        def step(state: Any, product: Any, cell: Cell = cell, recurrent: Any = recurrent, bias: Any = bias) -> Any:
            return cell(state, product, recurrent, bias)

        state, output = jax.lax.scan(step, tuple(each[at] for each in starts), x @ w[at].T, reverse=backwards)
        outputs.append(output)
        states.append(state)
    last = [jnp.stack([state[at] for state in states]) for at in range(len(initial))]
    return (jnp.stack(outputs, axis=1), *last)


RULES: Mapping[str, Rule] = {"GRU": _gru, "LSTM": _lstm, "RNN": _rnn}
