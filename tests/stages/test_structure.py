"""Cutting channels: the cut model computes what the full one does with the same channels masked."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax import lax

from deploycheck.errors import DeploycheckError
from deploycheck.stages.kernels import find_kernels
from deploycheck.stages.model import Model, build_model
from deploycheck.stages.structure import (
    CHANNELS,
    HEADS,
    Layout,
    Positions,
    choose_positions,
    cut_form,
    cut_model,
    plan_cuts,
)
from tests.stages.networks import check_training, from_function, plain

IMAGE, ROWS, TOKENS = (6, 6, 2), (8,), (5, 8)


class Block(nnx.Module):
    def __init__(self, inputs: int, outputs: int, rngs: nnx.Rngs) -> None:
        self.first = nnx.Conv(inputs, outputs, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(outputs, rngs=rngs)
        self.second = nnx.Conv(outputs, outputs, (3, 3), rngs=rngs)
        self.shortcut = nnx.Conv(inputs, outputs, (1, 1), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(self.second(nnx.relu(self.norm(self.first(x)))) + self.shortcut(x))


class Residual(nnx.Module):
    """Residual blocks whose last convolution is flattened into a dense layer, with dropout."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem, self.block = nnx.Conv(2, 6, (3, 3), rngs=rngs), Block(6, 8, rngs)
        self.dense, self.head = nnx.Linear(3 * 3 * 8, 10, rngs=rngs), nnx.Linear(10, 3, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.max_pool(self.block(self.stem(x)), (2, 2), strides=(2, 2))
        return self.head(self.dropout(nnx.sigmoid(self.dense(x.reshape(x.shape[0], -1)))))


class Encoder(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed, self.norm = nnx.Linear(8, 12, rngs=rngs), nnx.LayerNorm(12, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(4, 12, decode=False, rngs=rngs)
        self.up, self.down, self.head = (nnx.Linear(*it, rngs=rngs) for it in ((12, 20), (20, 12), (12, 3)))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.embed(x)
        x = x + self.attention(x)
        return self.head((x + self.down(nnx.gelu(self.up(self.norm(x))))).mean(axis=1))


class LinenNet(linen.Module):
    """A depthwise convolution and group normalisation: of the latter's groups, whole ones are cut."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = linen.relu(linen.Conv(6, (3, 3))(x))
        x = linen.Conv(6, (3, 3), feature_group_count=6)(x)
        x = linen.relu(linen.Conv(8, (1, 1))(x))
        x = linen.GroupNorm(num_groups=4)(x)
        return linen.Dense(3)(x.mean(axis=(1, 2)))


class Embedded(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.table, self.dense = nnx.Embed(11, 6, rngs=rngs), nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, ids: jax.Array) -> jax.Array:
        return self.dense(self.table(ids).mean(axis=1))


def built(module: Callable[..., Any], shape: tuple[int, ...], dtype: Any = jnp.float32) -> Model:
    inputs = {"x": jax.ShapeDtypeStruct((2, *shape), dtype)}
    model = build_model(module, {}, inputs, seed=0, outputs=("logits",))
    random = np.random.default_rng(1)
    noisy = {name: np.asarray(array) + random.exponential(0.2, array.shape) for name, array in model.weights.items()}
    return model.with_weights({name: jnp.asarray(array, jnp.float32) for name, array in noisy.items()})


MODELS: dict[str, tuple[Callable[[], Model], set[str]]] = {
    "residual": (
        lambda: built(Residual, IMAGE),
        {
            "stem/kernel",
            "block/first/kernel",
            "block/second/kernel",
            "block/shortcut/kernel",
            "dense/kernel",
            "head/kernel",
        },
    ),
    "attention": (
        lambda: built(Encoder, TOKENS),
        {f"attention/{part}/kernel" for part in ("query", "key", "value", "out")}
        | {f"attention/{part}/bias" for part in ("query", "key", "value")}  # they have two axes, heads and size
        | {"up/kernel", "down/kernel"},
    ),
    "linen": (lambda: built(LinenNet, IMAGE), {f"{name}/kernel" for name in ("Conv_0", "Conv_1", "Conv_2", "Dense_0")}),
    "embedding": (lambda: built(Embedded, (5,), jnp.int32), {"table/embedding", "dense/kernel"}),
    "function": (lambda: plain(0), {"kernel", "head"}),
}


@functools.cache
def model_and_cut(name: str) -> tuple[Model, Model, Layout, Positions]:
    model = MODELS[name][0]()
    kernels = find_kernels(model)
    layout = plan_cuts(model.form, CHANNELS, 0.5, kernels)
    return model, cut_model(model, CHANNELS, 0.5, kernels), layout, choose_positions(model.weights, layout)


def examples(model: Model, count: int) -> dict[str, jax.Array]:
    random = np.random.default_rng(0)
    return {
        name: jnp.asarray(random.integers(0, 5, (count, *it.shape[1:])).astype(it.dtype))
        for name, it in model.inputs.items()
    }


def masked(model: Model, layout: Layout, positions: Positions) -> Model:
    """Return the full model with zeros where the other has no weights."""
    weights = {}
    for name, array in model.weights.items():
        cuts = [cut for axis in layout[name] for cut in axis]
        parts = np.array(array).reshape([cut.size for cut in cuts])
        for axis, cut in enumerate(cuts):
            if cut.group is not None:
                removed = np.setdiff1d(np.arange(cut.size), positions[cut.group])
                np.moveaxis(parts, axis, 0)[removed] = 0
        weights[name] = jnp.asarray(parts.reshape(array.shape))
    return model.with_weights(weights)


def logits(model: Model, inputs: Mapping[str, jax.Array]) -> np.ndarray:
    return np.asarray(jax.jit(model.apply)(model.params, model.state, inputs)["logits"])


@pytest.mark.parametrize("name", MODELS)
def test_the_cut_model_computes_what_the_masked_one_does(name: str) -> None:
    model, cut, layout, positions = model_and_cut(name)
    inputs = examples(model, 7)
    expected = logits(masked(model, layout, positions), inputs)
    np.testing.assert_allclose(logits(cut, inputs), expected, rtol=1e-5, atol=1e-5)
    assert np.abs(logits(model, inputs) - expected).max() > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_all_kernels_between_inputs_and_outputs_become_smaller(name: str) -> None:
    model, cut, _, _ = model_and_cut(name)
    smaller = {it for it, array in model.weights.items() if cut.weights[it].size < array.size and array.ndim > 1}
    assert smaller == {f"params/{it}" for it in MODELS[name][1]}


def test_of_attention_whole_heads_are_cut() -> None:
    _, cut, _, _ = model_and_cut("attention")
    shapes = {name: cut.weights[f"params/attention/{name}/kernel"].shape for name in ("query", "key", "value", "out")}
    assert shapes == {"query": (12, 2, 3), "key": (12, 2, 3), "value": (12, 2, 3), "out": (2, 3, 12)}


@pytest.mark.parametrize("name", MODELS)
def test_the_form_is_that_of_the_cut_model(name: str) -> None:
    model, cut, _, _ = model_and_cut(name)
    form = cut_form(model.form, CHANNELS, 0.5, find_kernels(model))
    assert form.weights == cut.form.weights


@pytest.mark.parametrize("name", ["residual", "embedding"])
def test_the_cut_model_is_trained(name: str) -> None:
    _, cut, _, _ = model_and_cut(name)
    gradients = check_training(cut, examples(cut, 6))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_it_is_exported_for_any_batch() -> None:
    _, cut, _, _ = model_and_cut("residual")
    (rows,) = jax.export.symbolic_shape("rows")
    inputs = {"x": jax.ShapeDtypeStruct((rows, *IMAGE), jnp.float32)}
    exported = jax.export.export(jax.jit(lambda inputs: cut.apply(cut.params, cut.state, inputs)))(inputs)
    given = examples(cut, 3)
    np.testing.assert_allclose(exported.call(given)["logits"], logits(cut, given), rtol=1e-5, atol=1e-6)


def test_a_cut_model_is_cut_again() -> None:
    _, cut, _, _ = model_and_cut("residual")
    again = cut_model(cut, CHANNELS, 0.5, find_kernels(cut))
    assert again.weights["params/stem/kernel"].shape == (3, 3, 2, 2)  # 6, 3, 2
    assert logits(again, examples(cut, 3)).shape == (3, 3)


def mlp(params: Any, x: jax.Array) -> jax.Array:
    return jax.nn.relu(x @ params["in"]) @ params["out"]


def test_channels_with_the_lowest_norm_are_cut() -> None:
    first = jnp.ones((8, 4)) * jnp.array([1.0, 0.1, 5.0, 0.2])
    second = jnp.ones((4, 3)) * jnp.array([1.0, 9.0, 0.1, 0.1])[:, None]  # channel 1 is small in, and large out
    cut = cut_model(from_function({"in": first, "out": second}, mlp, ROWS), CHANNELS, 0.5, ["in", "out"])
    np.testing.assert_array_equal(cut.params["in"], first[:, jnp.array([1, 2])])
    np.testing.assert_array_equal(cut.params["out"], second[jnp.array([1, 2])])


@pytest.mark.parametrize(("share", "left"), [(0.25, 8), (0.3, 7), (0.99, 1), (0.1, 9)])
def test_the_share_is_rounded_down_so_that_something_is_left(share: float, left: int) -> None:
    model = from_function({"in": jnp.ones((8, 10)), "out": jnp.ones((10, 3))}, mlp, ROWS)
    assert cut_model(model, CHANNELS, share, ["in", "out"]).params["out"].shape == (left, 3)


def test_kernels_that_are_not_named_keep_their_shape() -> None:
    def deeper(params: Any, x: jax.Array) -> jax.Array:
        return jnp.tanh(mlp({"in": params["a"], "out": params["b"]}, x)) @ params["c"]

    params = {"a": jnp.ones((8, 4)), "b": jnp.ones((4, 6)), "c": jnp.ones((6, 3))}
    model = from_function(params, deeper, ROWS)
    cut = cut_model(model, CHANNELS, 0.5, ["b", "c"])
    assert {name: leaf.shape for name, leaf in cut.params.items()} == {"a": (8, 4), "b": (4, 3), "c": (3, 3)}


HIDDEN = {"in": jnp.ones((8, 4)), "out": jnp.ones((4, 3))}


@pytest.mark.parametrize(
    "between",
    [
        lambda h: h - h.mean(axis=1, keepdims=True),
        lambda h: h / h.max(axis=1, keepdims=True),
        lambda h: h * jnp.arange(4.0),
        lambda h: h + jnp.array([1.0, 2.0, 0.0, 1.0]),
        lambda h: jnp.cumsum(h, axis=1),
        lambda h: h[:, ::-1],
        lambda h: jnp.sort(h, axis=1),
        lambda h: jnp.concatenate([h[:, :2], h[:, 2:]], axis=1),
        lambda h: jnp.pad(h, ((0, 0), (1, 0)))[:, :4],
        lambda h: lax.scan(lambda carry, _: (carry, None), h, None, length=2)[0],
        lambda h: jax.nn.softmax(h),
        lambda h: h.at[:, 0].set(0),
    ],
)
def test_channels_that_are_not_independent_are_not_cut(between: Callable[[jax.Array], jax.Array]) -> None:
    model = from_function(HIDDEN, lambda p, x: between(x @ p["in"]) @ p["out"], ROWS)
    with pytest.raises(DeploycheckError, match="no channels can be cut"):
        cut_model(model, CHANNELS, 0.5, ["in", "out"])


@pytest.mark.parametrize(
    "between",
    [
        lambda h: h.T.T,
        lambda h: h.reshape(-1, 2, 2).reshape(-1, 4),
        lambda h: jnp.concatenate([h, h], axis=0)[: h.shape[0]],
        lambda h: jnp.where(h > 0, h, jnp.zeros(h.shape)),
        lambda h: h * jax.nn.sigmoid(h) * jnp.ones((1, 4)),
        lambda h: jnp.pad(h, ((1, 0), (0, 0)))[1:],
        lambda h: jax.vmap(jnp.tanh)(h),
        lambda h: jnp.clip(h, -1, 1).astype(jnp.bfloat16).astype(jnp.float32),
    ],
)
def test_independent_channels_are_cut(between: Callable[[jax.Array], jax.Array]) -> None:
    keys = jax.random.split(jax.random.key(0))
    params = {"in": jax.random.normal(keys[0], (8, 4)), "out": jax.random.normal(keys[1], (4, 3))}
    model = from_function(params, lambda p, x: between(x @ p["in"]) @ p["out"], ROWS)
    layout = plan_cuts(model.form, CHANNELS, 0.5, ["in", "out"])
    positions = choose_positions(model.weights, layout)
    cut = cut_model(model, CHANNELS, 0.5, ["in", "out"])
    assert cut.params["in"].shape[1] == 2
    inputs = examples(model, 4)
    np.testing.assert_allclose(
        logits(cut, inputs), logits(masked(model, layout, positions), inputs), rtol=1e-5, atol=1e-5
    )


def test_too_small_a_share_is_refused() -> None:
    with pytest.raises(DeploycheckError, match="10% of groups of 4 is less than one"):
        cut_model(from_function(HIDDEN, mlp, ROWS), CHANNELS, 0.1, ["in", "out"])


def test_inputs_and_outputs_keep_their_channels() -> None:
    model = from_function({"w": jnp.ones((8, 3))}, lambda params, x: x @ params["w"], ROWS)
    with pytest.raises(DeploycheckError, match="no channels can be cut") as caught:
        cut_model(model, CHANNELS, 0.5, ["w"])
    assert "not those of inputs and outputs" in str(caught.value.hint)


def heads_of_one_array(params: Any, x: jax.Array) -> jax.Array:
    """Attention of four heads of three numbers, with one product for queries, keys and values, and a causal mask."""
    query, key, value = ((x @ params[name]).reshape(*x.shape[:2], 4, 3) for name in ("query", "key", "value"))
    scores = jnp.einsum("bthk,bshk->bhts", query, key) / jnp.sqrt(3.0)
    causal = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
    seen = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf), axis=-1)
    mixed = jnp.einsum("bhts,bshk->bthk", seen, value).reshape(*x.shape[:2], 12)
    return (mixed @ params["out"]).mean(axis=1) @ params["head"]


def by_hand() -> Model:
    sizes = {"query": (8, 12), "key": (8, 12), "value": (8, 12), "out": (12, 8), "head": (8, 3)}
    keys = jax.random.split(jax.random.key(0), len(sizes))
    params = {name: jax.random.normal(key, size) for key, (name, size) in zip(keys, sizes.items(), strict=True)}
    return from_function(params, heads_of_one_array, TOKENS)


class LinenEncoder(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = linen.Dense(12)(x)
        x = x + linen.MultiHeadDotProductAttention(num_heads=4)(linen.LayerNorm()(x))
        return linen.Dense(3)(linen.relu(linen.Dense(9)(x)).mean(axis=1))


ATTENTION: dict[str, tuple[Callable[[], Model], str, dict[str, tuple[int, ...]]]] = {
    "nnx": (
        lambda: built(Encoder, TOKENS),
        "attention/",
        {"query/kernel": (12, 2, 3), "key/bias": (2, 3), "value/kernel": (12, 2, 3), "out/kernel": (2, 3, 12)},
    ),
    "linen": (
        lambda: built(LinenEncoder, TOKENS),
        "MultiHeadDotProductAttention_0/",
        {"query/kernel": (12, 2, 3), "key/bias": (2, 3), "value/kernel": (12, 2, 3), "out/kernel": (2, 3, 12)},
    ),
    "one array for all heads": (by_hand, "", {"query": (8, 6), "key": (8, 6), "value": (8, 6), "out": (6, 8)}),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_heads_are_cut_and_nothing_else_becomes_smaller(name: str) -> None:
    make, prefix, shapes = ATTENTION[name]
    model = make()
    kernels = find_kernels(model)
    cut = cut_model(model, HEADS, 0.5, kernels)
    assert {part: cut.weights[f"params/{prefix}{part}"].shape for part in shapes} == shapes
    smaller = {it for it, array in model.weights.items() if cut.weights[it].size < array.size}
    assert all(it.startswith(f"params/{prefix}") for it in smaller)
    assert "params/head" not in smaller
    assert cut_form(model.form, HEADS, 0.5, kernels).weights == cut.form.weights
    layout = plan_cuts(model.form, HEADS, 0.5, kernels)
    positions = choose_positions(model.weights, layout)
    inputs = examples(model, 4)
    expected = logits(masked(model, layout, positions), inputs)
    np.testing.assert_allclose(logits(cut, inputs), expected, rtol=1e-5, atol=1e-5)
    assert np.abs(logits(model, inputs) - expected).max() > 1e-3


def test_the_head_with_the_smallest_weights_is_cut() -> None:
    model = by_hand()
    scale = jnp.repeat(jnp.array([1.0, 9.0, 0.1, 4.0]), 3)
    params = {name: leaf * scale if leaf.shape[-1] == 12 else leaf for name, leaf in model.params.items()}
    cut = cut_model(from_function(params, heads_of_one_array, TOKENS), HEADS, 0.25, find_kernels(model))
    left = jnp.array([0, 1, 2, 3, 4, 5, 9, 10, 11])
    np.testing.assert_array_equal(cut.params["query"], params["query"][:, left])
    np.testing.assert_array_equal(cut.params["out"], params["out"][left])


def test_groups_of_weights_are_no_heads() -> None:
    def grouped(params: Any, x: jax.Array) -> jax.Array:
        hidden = jnp.einsum("bghi,ghk->bgk", jnp.einsum("bd,dgh->bgh", x, params["in"])[..., None], params["each"])
        return hidden.reshape(len(x), -1) @ params["out"]

    params = {"in": jnp.ones((8, 4, 3)), "each": jnp.ones((4, 3, 2)), "out": jnp.ones((8, 3))}
    model = from_function(params, grouped, ROWS)
    kernels = find_kernels(model)
    assert cut_model(model, CHANNELS, 0.5, kernels).params["each"].shape[0] == 2
    with pytest.raises(DeploycheckError, match="no heads can be cut"):
        cut_model(model, HEADS, 0.5, kernels)


def test_a_model_without_attention_has_no_heads() -> None:
    with pytest.raises(DeploycheckError, match="no heads can be cut") as caught:
        cut_model(plain(0), HEADS, 0.5, ["kernel", "head"])
    assert "queries with keys of their own" in str(caught.value.hint)
