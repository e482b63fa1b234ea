"""Models whose weights are in places that are hard to reach, each beside a plain form of the same function.

Each is ``(params, apply, plain params, plain apply)``: the plain form has a weight of its own, of shape
``[inputs, outputs]``, for every product, and no loop, branch, checkpoint, cast or transpose of a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

Apply = Callable[[Any, jax.Array], jax.Array]
Pair = tuple[Mapping[str, Any], Apply, Mapping[str, Any], Apply]

STEPS, WIDTH, WORDS = 5, 8, 20


def normal(*shape: int, seed: int = 0) -> jax.Array:
    """Return weights of this shape that keep the size of what they are multiplied with."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) / np.sqrt(WIDTH), jnp.float32)


def weights(**shapes: tuple[int, ...]) -> dict[str, jax.Array]:
    """Return weights of these shapes."""
    return {name: normal(*shape, seed=seed) for seed, (name, shape) in enumerate(shapes.items())}


def recurrent() -> Pair:
    """A recurrent model: the loop's body has the weights as constants. ``x`` is ``[batch, STEPS, WIDTH]``."""
    params = weights(inner=(WIDTH, WIDTH), outer=(WIDTH, WIDTH))

    def apply(params: Any, x: jax.Array) -> jax.Array:
        def step(state: jax.Array, row: jax.Array) -> tuple[jax.Array, None]:
            return jnp.tanh(row @ params["outer"] + state @ params["inner"]), None

        return jax.lax.scan(step, jnp.zeros_like(x[:, 0]), jnp.swapaxes(x, 0, 1))[0]

    def plain(params: Any, x: jax.Array) -> jax.Array:
        state = jnp.zeros_like(x[:, 0])
        for i in range(STEPS):
            state = jnp.tanh(x[:, i] @ params["outer"] + state @ params["inner"])
        return state

    return params, apply, params, plain


def lstm() -> Pair:
    """An LSTM of flax, whose body joins the kernels of its four gates."""
    module = linen.RNN(linen.OptimizedLSTMCell(WIDTH))
    params = module.init(jax.random.key(0), jnp.zeros((2, STEPS, WIDTH)))["params"]

    def plain(params: Any, x: jax.Array) -> jax.Array:
        cell = params["cell"]
        state, memory, outputs = jnp.zeros_like(x[:, 0]), jnp.zeros_like(x[:, 0]), []
        for i in range(STEPS):
            i_, f, g, o = (
                x[:, i] @ cell[f"i{gate}"]["kernel"] + state @ cell[f"h{gate}"]["kernel"] + cell[f"h{gate}"]["bias"]
                for gate in "ifgo"
            )
            memory = jax.nn.sigmoid(f) * memory + jax.nn.sigmoid(i_) * jnp.tanh(g)
            state = jax.nn.sigmoid(o) * jnp.tanh(memory)
            outputs.append(state)
        return jnp.stack(outputs, axis=1)

    return params, lambda params, x: module.apply({"params": params}, x), params, plain


def stacked_layers() -> Pair:
    """Layers under ``lax.scan``, each recomputed in training: one array has the kernels of all layers."""
    params = {"layers": normal(3, WIDTH, WIDTH), "biases": 0.1 * normal(3, WIDTH)}

    def apply(params: Any, x: jax.Array) -> jax.Array:
        @jax.checkpoint
        def layer(x: jax.Array, own: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            return jax.nn.gelu(x @ own[0] + own[1]), None

        return jax.lax.scan(layer, x, (params["layers"], params["biases"]))[0]

    def plain(params: Any, x: jax.Array) -> jax.Array:
        for i in range(3):
            x = jax.nn.gelu(x @ params[f"layer{i}"] + params[f"bias{i}"])
        return x

    flat = {f"layer{i}": params["layers"][i] for i in range(3)} | {f"bias{i}": params["biases"][i] for i in range(3)}
    return params, apply, flat, plain


def indexed_layers() -> Pair:
    """The same layers in a ``fori_loop`` that cuts each kernel out of the array of all."""
    params, _, flat, plain = stacked_layers()

    def apply(params: Any, x: jax.Array) -> jax.Array:
        def layer(i: jax.Array, x: jax.Array) -> jax.Array:
            return jax.nn.gelu(x @ params["layers"][i] + params["biases"][i])

        return jax.lax.fori_loop(0, 3, layer, x)

    return params, apply, flat, plain


def repeated_while() -> Pair:
    """A loop of unknown length, whose state has the kernel that it doesn't change."""
    params = weights(kernel=(WIDTH, WIDTH))

    def apply(params: Any, x: jax.Array) -> jax.Array:
        def step(state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
            count, kernel, x = state
            return count + 1, kernel, jnp.tanh(x @ kernel)

        return jax.lax.while_loop(lambda state: state[0] < 3, step, (0, params["kernel"], x))[2]

    def plain(params: Any, x: jax.Array) -> jax.Array:
        for _ in range(3):
            x = jnp.tanh(x @ params["kernel"])
        return x

    return params, apply, params, plain


def chosen_branch() -> Pair:
    """A product in each branch."""
    params = weights(one=(WIDTH, WIDTH), other=(WIDTH, WIDTH))

    def apply(params: Any, x: jax.Array) -> jax.Array:
        first = jax.lax.cond(x.shape[0] > 0, lambda: x @ params["one"], lambda: x @ params["other"])
        return first + jax.lax.cond(x.sum() > jnp.inf, lambda: x @ params["one"], lambda: x @ params["other"])

    return params, apply, params, lambda params, x: x @ params["one"] + x @ params["other"]


def tied_embedding() -> Pair:
    """A table of words, used for the lookup and, transposed, as the head. ``x`` are word numbers ``[batch, STEPS]``."""
    params = weights(table=(WORDS, WIDTH), kernel=(WIDTH, WIDTH))

    def apply(params: Any, x: jax.Array) -> jax.Array:
        return jnp.tanh(jnp.take(params["table"], x, axis=0) @ params["kernel"]) @ params["table"].T

    def plain(params: Any, x: jax.Array) -> jax.Array:
        return jnp.tanh(params["table"][x] @ params["kernel"]) @ params["head"]

    return params, apply, {**params, "head": params["table"].T}, plain


def left_operand() -> Pair:
    """A model of one example, ``w @ x``, under ``vmap``."""
    params = weights(kernel=(4, WIDTH), head=(3, 4))

    def apply(params: Any, x: jax.Array) -> jax.Array:
        return jax.vmap(lambda row: params["head"] @ jax.nn.relu(params["kernel"] @ row))(x)

    flat = {name: array.T for name, array in params.items()}
    return params, apply, flat, lambda params, x: jax.nn.relu(x @ params["kernel"]) @ params["head"]


def transposed() -> Pair:
    """A kernel that is stored ``[outputs, inputs]``."""
    params = weights(kernel=(4, WIDTH))
    flat = {"kernel": params["kernel"].T}
    return params, lambda params, x: x @ params["kernel"].T, flat, lambda params, x: x @ params["kernel"]


def bfloat16_body() -> Pair:
    """A model that computes in bfloat16, with weights in float32."""
    params = weights(kernel=(WIDTH, WIDTH))

    def apply(params: Any, x: jax.Array) -> jax.Array:
        return (x.astype(jnp.bfloat16) @ params["kernel"].astype(jnp.bfloat16)).astype(jnp.float32)

    def plain(params: Any, x: jax.Array) -> jax.Array:
        rounded = x.astype(jnp.bfloat16).astype(jnp.float32)
        return (rounded @ params["kernel"]).astype(jnp.bfloat16).astype(jnp.float32)

    return params, apply, params, plain


def heads_and_cuts() -> Pair:
    """An attention of two heads: its three input kernels are one array, cut; that of its output is reshaped."""
    params = weights(qkv=(WIDTH, 3 * WIDTH), out=(WIDTH, WIDTH))

    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        q, k, v = (it.reshape(*it.shape[:2], 2, WIDTH // 2) for it in (q, k, v))
        return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k)), v)

    def apply(params: Any, x: jax.Array) -> jax.Array:
        mixed = attend(*(x @ kernel for kernel in jnp.split(params["qkv"], 3, axis=1)))
        return jnp.einsum("bqhd,hdo->bqo", mixed, params["out"].reshape(2, WIDTH // 2, WIDTH))

    def plain(params: Any, x: jax.Array) -> jax.Array:
        mixed = attend(*(x @ params[name] for name in "qkv"))
        return mixed.reshape(*x.shape[:2], WIDTH) @ params["out"]

    parts = dict(zip("qkv", jnp.split(params["qkv"], 3, axis=1), strict=True))
    return params, apply, {**parts, "out": params["out"]}, plain


PAIRS: Mapping[str, tuple[Callable[[], Pair], tuple[int, ...]]] = {
    "recurrent": (recurrent, (STEPS, WIDTH)),
    "lstm": (lstm, (STEPS, WIDTH)),
    "stacked layers": (stacked_layers, (WIDTH,)),
    "indexed layers": (indexed_layers, (WIDTH,)),
    "while": (repeated_while, (WIDTH,)),
    "cond": (chosen_branch, (WIDTH,)),
    "tied embedding": (tied_embedding, (STEPS,)),
    "left operand": (left_operand, (WIDTH,)),
    "transposed": (transposed, (WIDTH,)),
    "bfloat16": (bfloat16_body, (WIDTH,)),
    "heads": (heads_and_cuts, (STEPS, WIDTH)),
}
"""Each pair of forms, with the shape of one example."""
