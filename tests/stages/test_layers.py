"""Layers taken out: what is left computes what the full model does where the layers' branches give zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from deploycheck.errors import DeploycheckError
from deploycheck.stages.kernels import find_kernels
from deploycheck.stages.layers import drop_layers, layer_names, least_influential
from deploycheck.stages.model import Model, build_model
from deploycheck.stages.structure import CHANNELS, cut_model
from tests.stages.networks import check_training, from_function, plain

TOKENS, IMAGE, ROWS = (5, 8), (6, 6, 2), (8,)


class Block(nnx.Module):
    """A pre-norm encoder block: two residual connections."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norms = nnx.List(nnx.LayerNorm(8, rngs=rngs) for _ in range(2))
        self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(8, 12, rngs=rngs), nnx.Linear(12, 8, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.dropout(self.attention(self.norms[0](x)))
        return x + self.down(nnx.gelu(self.up(self.norms[1](x))))


class Encoder(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.blocks = nnx.List(Block(rngs) for _ in range(4))
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(axis=1))


class Residual(linen.Module):
    """A convolutional block with running statistics, whose sum goes through a relu."""

    @linen.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        branch = linen.relu(linen.BatchNorm(use_running_average=not train)(linen.Conv(4, (3, 3))(x)))
        return linen.relu(x + linen.Conv(4, (3, 3))(branch))


class Convolutional(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = linen.Conv(4, (3, 3))(x)
        for _ in range(3):
            x = Residual()(x, train)
        return linen.Dense(3)(x.mean(axis=(1, 2)))


class PostNorm(linen.Module):
    """Normalised after each sum, with the weights of the second connection directly in the block."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = linen.LayerNorm()(x + linen.MultiHeadDotProductAttention(2)(x))
        return linen.LayerNorm()(x + linen.Dense(8)(linen.gelu(linen.Dense(9)(x))))  # Dense_0 is the outer one


class PostNorms(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(2):
            x = PostNorm()(x)
        return linen.Dense(3)(x.mean(axis=1))


class Parallel(nnx.Module):
    """Attention and dense layers next to each other, in half precision."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first, self.second = (
            nnx.Dict(a=nnx.Linear(8, 8, rngs=rngs), b=nnx.Linear(8, 8, rngs=rngs)) for _ in range(2)
        )
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for part in (self.first, self.second):
            low = x.astype(jnp.bfloat16)
            x = x + nnx.relu(part["a"](low)).astype(jnp.float32) + nnx.tanh(part["b"](x))
        return self.head(x)


def tree_of_lists() -> Model:
    def apply(params: Any, x: jax.Array) -> jax.Array:
        for layer in params["layers"]:
            x = x + jnp.tanh(x @ layer["in"]) @ layer["out"]
        return x @ params["head"]

    keys = iter(jax.random.split(jax.random.key(0), 9))
    layers = [
        {"in": jax.random.normal(next(keys), (8, 4)), "out": jax.random.normal(next(keys), (4, 8))} for _ in "abc"
    ]
    return from_function({"layers": layers, "head": jax.random.normal(next(keys), (8, 3))}, apply, ROWS)


def built(module: Callable[..., Any], shape: tuple[int, ...]) -> Model:
    inputs = {"x": jax.ShapeDtypeStruct((2, *shape), jnp.float32)}
    model = build_model(module, {}, inputs, seed=0, outputs=("logits",))
    random = np.random.default_rng(1)
    noisy = {name: array + random.exponential(0.2, array.shape) for name, array in model.weights.items()}
    return model.with_weights({name: jnp.asarray(array, jnp.float32) for name, array in noisy.items()})


MODELS: dict[str, tuple[Callable[[], Model], list[str], tuple[str, ...]]] = {
    # the model, its layers, and the weights that give each branch its last factor
    "nnx": (lambda: built(Encoder, TOKENS), [f"blocks/{i}" for i in range(4)], ("attention/out", "down")),
    "linen": (lambda: built(Convolutional, IMAGE), [f"Residual_{i}" for i in range(3)], ("Conv_1",)),
    "post-norm": (
        lambda: built(PostNorms, TOKENS),
        ["PostNorm_0", "PostNorm_1"],
        ("MultiHeadDotProductAttention_0/out", "Dense_0"),
    ),
    "parallel": (lambda: built(Parallel, ROWS), ["first/a", "first/b", "second/a", "second/b"], ("",)),
    "function": (tree_of_lists, ["layers/0", "layers/1", "layers/2"], ("out",)),
}


def inputs_for(model: Model, count: int = 4) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.normal(size=(count, *it.shape[1:])).astype(it.dtype) for name, it in model.inputs.items()}


def logits(model: Model, inputs: Any) -> np.ndarray:
    return np.asarray(jax.jit(model.apply)(model.params, model.state, inputs)["logits"])


def silenced(model: Model, layer: str, last: tuple[str, ...]) -> Model:
    """Return the full model where the branches of a layer give zero."""
    starts = tuple(f"params/{layer}/{part}".rstrip("/") for part in last)
    return model.with_weights(
        {name: jnp.zeros_like(it) if name.startswith(starts) else it for name, it in model.weights.items()}
    )


@pytest.mark.parametrize("name", MODELS)
def test_layers_are_the_parts_that_connections_go_around(name: str) -> None:
    make, layers, _ = MODELS[name]
    assert layer_names(make()) == layers


@pytest.mark.parametrize("name", MODELS)
def test_what_is_left_computes_what_the_model_does_without_the_layer(name: str) -> None:
    make, layers, last = MODELS[name]
    model, dropped = make(), layers[1]
    left, inputs = drop_layers(model, [dropped]), inputs_for(model, 3)
    np.testing.assert_allclose(
        logits(left, inputs), logits(silenced(model, dropped, last), inputs), rtol=1e-4, atol=1e-5
    )
    assert np.abs(logits(model, inputs) - logits(left, inputs)).max() > 1e-3


@pytest.mark.parametrize("name", ["nnx", "linen", "function"])
def test_the_weights_of_a_layer_go_with_it(name: str) -> None:
    make, layers, _ = MODELS[name]
    model = make()
    left = drop_layers(model, layers[:2])
    gone = model.weights.keys() - left.weights.keys()
    assert gone == {it for it in model.weights if any(f"/{layer}/" in it for layer in layers[:2])}
    assert drop_layers(model.form, layers[:2]).weights == left.form.weights


@pytest.mark.parametrize("name", ["nnx", "linen", "function"])
def test_what_is_left_is_trained(name: str) -> None:
    make, layers, _ = MODELS[name]
    left = drop_layers(make(), [layers[0]])
    gradients = check_training(left, inputs_for(left))
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients["head" if name != "linen" else "Dense_0"]))


class UsedTwice(linen.Module):
    """A layer whose weights have a further use in training."""

    @linen.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        layer = linen.Dense(8, name="layer")
        x = x + jnp.tanh(layer(x))
        return linen.Dense(3, name="head")(x * layer(x) if train else x)


def test_weights_that_training_uses_elsewhere_stay() -> None:
    model = built(UsedTwice, ROWS)
    left, inputs = drop_layers(model, ["layer"]), inputs_for(model)
    assert left.weights.keys() == model.weights.keys()
    np.testing.assert_allclose(logits(left, inputs), logits(silenced(model, "layer", ("",)), inputs), rtol=1e-5)
    assert jnp.abs(check_training(left, inputs)["layer"]["kernel"]).max() > 0


def test_a_connection_is_seen_through_a_change_of_precision() -> None:
    def apply(params: Any, x: jax.Array) -> jax.Array:
        x = x + jnp.tanh(x @ params["a"]["w"])
        return x.astype(jnp.bfloat16) + jnp.tanh(x @ params["b"]["w"]).astype(jnp.bfloat16)

    params = {name: {"w": jnp.eye(8)} for name in "ab"}
    assert layer_names(from_function(params, apply, ROWS)) == ["a", "b"]


def test_a_layer_whose_sum_is_an_output_may_go() -> None:
    params = {name: {"w": jnp.eye(8)} for name in "ab"}
    model = from_function(params, lambda p, x: (lambda h: h + h @ p["b"]["w"])(x + x @ p["a"]["w"]), ROWS)
    inputs = inputs_for(model)
    np.testing.assert_allclose(logits(drop_layers(model, ["b"]), inputs), 2 * inputs["x"], rtol=1e-6)


def test_all_layers_may_go_and_then_none_is_left() -> None:
    model = tree_of_lists()
    left = drop_layers(model, layer_names(model))
    assert list(left.weights) == ["params/head"]
    assert layer_names(left) == []


def test_it_is_exported_for_any_batch_cut_and_taken_apart_again() -> None:
    model = built(Encoder, TOKENS)
    left = drop_layers(drop_layers(model, ["blocks/1"]), ["blocks/3"])
    inputs = inputs_for(model, 3)
    np.testing.assert_allclose(logits(left, inputs), logits(drop_layers(model, ["blocks/1", "blocks/3"]), inputs))
    narrow = cut_model(left, CHANNELS, 0.5, find_kernels(left))
    assert narrow.weights["params/blocks/0/up/kernel"].shape == (8, 6)
    (rows,) = jax.export.symbolic_shape("rows")
    shape = {"x": jax.ShapeDtypeStruct((rows, *TOKENS), jnp.float32)}
    exported = jax.export.export(jax.jit(lambda given: left.apply(left.params, left.state, given)))(shape)
    np.testing.assert_allclose(exported.call(inputs)["logits"], logits(left, inputs), rtol=1e-5, atol=1e-6)


def test_the_layer_that_changes_least_has_the_least_influence() -> None:
    model = built(Encoder, TOKENS)
    weak = {"blocks/1": 0.1, "blocks/3": 0.01}
    scaled = {
        name: array
        * next((factor for layer, factor in weak.items() if f"/{layer}/" in name and "norm" not in name), 1.0)
        for name, array in model.weights.items()
    }
    model, names = model.with_weights(scaled), layer_names(model)
    inputs = inputs_for(model, 40)
    assert least_influential(model, inputs, 1, names) == ["blocks/3"]
    assert least_influential(model, inputs, 2, names) == ["blocks/1", "blocks/3"]
    assert least_influential(model, inputs, 1, ["blocks/0", "blocks/1"]) == ["blocks/1"]


def test_influence_is_one_minus_the_cosine() -> None:
    turned = jnp.array([[0.0, 1.0], [-1.0, 0.0]])  # by a right angle: x + f(x) is turned by 45 degrees
    params = {"a": {"w": turned}, "b": {"w": 0.5 * jnp.eye(2)}, "c": {"w": -2.0 * jnp.eye(2)}}  # 45, 0 and 180 degrees

    def apply(params: Any, x: jax.Array) -> jax.Array:
        for part in params.values():
            x = x + x @ part["w"]
        return x

    model = from_function(params, apply, (2,))
    inputs = inputs_for(model, 5)
    chosen = [least_influential(model, inputs, count, ["a", "b", "c"]) for count in (1, 2, 3)]
    assert chosen == [["b"], ["a", "b"], ["a", "b", "c"]]


@pytest.mark.parametrize(
    "function",
    [
        lambda p, x: x @ p["b"]["w"] + x @ p["c"]["w"],  # both summands have weights, and neither is the other's input
        lambda p, x: x @ p["b"]["w"] + p["c"]["w"][0],  # a bias
        lambda p, x: x + x.mean(axis=0) * 2,  # no weights
        lambda p, x: (lambda h: h + jnp.tanh(h) * (x @ p["c"]["w"]))(x @ p["b"]["w"]),  # not from what stays alone
        lambda p, x: x + jnp.tile(p["c"]["w"][:1], (x.shape[0], 1)),  # positions
        lambda p, x: x[:, :1] + x @ p["b"]["w"],  # a sum that is wider than what stays
        lambda p, x: x * (x @ p["b"]["w"]),
    ],
)
def test_other_sums_are_no_layers(function: Callable[..., jax.Array]) -> None:
    params = {"b": {"w": jnp.ones((8, 8))}, "c": {"w": jnp.ones((8, 8))}}
    assert layer_names(from_function(params, function, ROWS)) == []


def test_a_name_that_is_no_layers_is_refused_with_what_was_meant() -> None:
    model = tree_of_lists()
    with pytest.raises(DeploycheckError, match="the model has no layer 'layer/1'") as caught:
        drop_layers(model, ["layer/1"])
    assert caught.value.hint == "did you mean 'layers/1'?"
    with pytest.raises(DeploycheckError, match="no layer 'x'") as caught:
        drop_layers(model, ["x"])
    assert caught.value.hint == "there are: layers/0, layers/1, layers/2"
    with pytest.raises(DeploycheckError, match="no layer 'x'") as caught:
        drop_layers(plain(0), ["x"])
    assert "a residual connection goes around" in str(caught.value.hint)


def test_more_layers_than_there_are_is_refused() -> None:
    model = tree_of_lists()
    with pytest.raises(DeploycheckError, match="4 layers can't be taken out of 3"):
        least_influential(model, inputs_for(model), 4, layer_names(model))
