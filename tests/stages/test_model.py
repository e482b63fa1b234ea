from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from deploycheck.errors import DeploycheckError
from deploycheck.stages.model import Model, build_model, flatten, predictor, to_network
from deploycheck.stages.preprocess import apply_all, scale
from tests.stages.networks import IMAGE, LOGITS, build, from_function, plain

Stripes = tuple[np.ndarray, np.ndarray]


def joined(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_every_form_gives_logits_and_trains(builder: Callable[[int], Model], stripes: Stripes) -> None:
    model = builder(0)
    inputs = {"image": stripes[0][:8]}
    outputs = model.apply(model.params, model.state, inputs)
    assert {name: array.shape for name, array in outputs.items()} == {"logits": (8, 3)}
    outputs, state = model.train(model.params, model.state, inputs, jax.random.key(1))
    assert {name: array.shape for name, array in outputs.items()} == {"logits": (8, 3)}
    assert jax.tree.structure(state) == jax.tree.structure(model.state)


def test_inference_answers_each_example_alone(builder: Callable[[int], Model], stripes: Stripes) -> None:
    model = builder(0)
    together = model.apply(model.params, model.state, {"image": stripes[0][:8]})["logits"]
    alone = model.apply(model.params, model.state, {"image": stripes[0][3:4]})["logits"]
    np.testing.assert_allclose(together[3:4], alone, atol=1e-5)


def test_seeds_differ_and_repeat(builder: Callable[[int], Model]) -> None:
    one, again, other = (joined(builder(seed).params) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("form", ["nnx", "linen"])
def test_training_mode_drops_out_and_inference_does_not(form: str, stripes: Stripes) -> None:
    example, model = {"image": stripes[0][:8]}, build(form, 0)
    one, _ = model.train(model.params, model.state, example, jax.random.key(1))
    other, _ = model.train(model.params, model.state, example, jax.random.key(2))
    assert not np.allclose(one["logits"], other["logits"])
    first, second = (model.apply(model.params, model.state, example) for _ in range(2))
    np.testing.assert_array_equal(first["logits"], second["logits"])


@pytest.mark.parametrize("form", ["nnx", "linen"])
def test_running_statistics_move_in_training(form: str, stripes: Stripes) -> None:
    model = build(form, 0)
    _, state = model.train(model.params, model.state, {"image": stripes[0][:8]}, jax.random.key(1))
    assert not np.allclose(joined(model.state), joined(state))


def test_what_is_not_a_model_is_refused() -> None:
    with pytest.raises(DeploycheckError, match="it returned int, which is not a model"):
        build_model(lambda: 3, {}, IMAGE, seed=0, outputs=LOGITS)


def test_a_builder_is_given_the_seed_in_the_form_that_it_asks_for() -> None:
    given: dict[str, Any] = {}

    def builder(seed: int, key: jax.Array, rngs: nnx.Rngs) -> Any:
        given.update(seed=seed, key=key, rngs=rngs.params())
        return {}, lambda params, image: image

    build_model(builder, {}, IMAGE, seed=5, outputs=LOGITS)
    assert given == {"seed": 5, "key": jax.random.key(5), "rngs": nnx.Rngs(5).params()}


def test_a_builders_own_seed_is_kept() -> None:
    given: list[int] = []

    def builder(seed: int) -> Any:
        given.append(seed)
        return {}, lambda params, image: image

    build_model(builder, {"seed": 7}, IMAGE, seed=5, outputs=LOGITS)
    assert given == [7]


def test_outputs_that_have_names_keep_them() -> None:
    def two_heads(params: Any, x: jax.Array) -> dict[str, jax.Array]:
        return {"logits": x @ params["w"], "features": x}

    model = from_function({"w": jnp.ones((4, 2))}, two_heads, (4,))
    outputs = model.apply(model.params, model.state, {"x": jnp.ones((5, 4))})
    assert {name: array.shape for name, array in outputs.items()} == {"logits": (5, 2), "features": (5, 4)}


def test_a_tuple_of_outputs_is_refused() -> None:
    model = from_function({}, lambda params, x: (x, x), (4,))
    with pytest.raises(DeploycheckError, match="the model gives a tuple, expected one array or a dict of arrays"):
        model.apply(model.params, model.state, {"x": jnp.ones((5, 4))})


def test_several_inputs_are_given_by_name() -> None:
    inputs = {name: jax.ShapeDtypeStruct((2, 3), jnp.float32) for name in ("b", "a")}
    model = build_model(lambda: ({}, lambda params, a, b: a - b), {}, inputs, seed=0, outputs=LOGITS)
    outputs = model.apply(model.params, model.state, {"b": jnp.ones((2, 3)), "a": jnp.full((2, 3), 5.0)})
    np.testing.assert_array_equal(outputs["logits"], np.full((2, 3), 4.0))


def test_weights_are_named_by_path_and_come_back() -> None:
    tree = {"layers": [{"kernel": np.ones((2, 3))}, {"kernel": np.zeros(4)}]}
    weights, restore = flatten(tree)
    assert sorted(weights) == ["layers/0/kernel", "layers/1/kernel"]
    again = restore(weights)
    np.testing.assert_array_equal(again["layers"][0]["kernel"], tree["layers"][0]["kernel"])


def test_a_form_takes_weights_and_is_the_model_again(builder: Callable[[int], Model], stripes: Stripes) -> None:
    model, form = builder(0), builder(1).form
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves((form.params, form.state)))
    again = form.with_weights(model.weights)
    inputs = {"image": stripes[0][:4]}
    np.testing.assert_array_equal(
        again.apply(again.params, again.state, inputs)["logits"],
        model.apply(model.params, model.state, inputs)["logits"],
    )


def test_a_network_preprocesses_raw_inputs_by_what_was_fitted(stripes: Stripes) -> None:
    model, raw = plain(0), {"image": stripes[0][:4]}
    fitted = {"preprocess/0.scale/by": np.float32(2), "preprocess/0.scale/offset": np.float32(1)}
    network = to_network(model, apply_all([(scale, {})]), fitted)
    np.testing.assert_allclose(
        network.apply(network.weights, raw)["logits"],
        model.apply(model.params, model.state, {"image": 2 * raw["image"] + 1})["logits"],
        rtol=1e-5,
    )
    assert network.weights.keys() == {*model.weights, *fitted}


@pytest.mark.parametrize("count", [1, 7, 8, 9])
def test_prediction_in_batches_is_prediction(count: int, builder: Callable[[int], Model], stripes: Stripes) -> None:
    network = to_network(builder(0), apply_all([]), {})
    inputs = {"image": stripes[0][:count]}
    outputs = predictor(network.apply, 4)(network.weights, inputs)
    assert outputs["logits"].shape == (count, 3)
    np.testing.assert_allclose(outputs["logits"], network.apply(network.weights, inputs)["logits"], atol=1e-5)


class NnxMode(nnx.Module):
    """The mode is an argument of the call; its default is that of training."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm = nnx.BatchNorm(4, rngs=rngs)

    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        return self.norm(x, use_running_average=not train)


class LinenMode(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array, use_running_average: bool = False) -> jax.Array:
        return linen.BatchNorm(use_running_average=use_running_average)(x)


def of_four(build: Callable[..., Any]) -> Model:
    return build_model(build, {}, {"x": jax.ShapeDtypeStruct((2, 4), jnp.float32)}, seed=0, outputs=LOGITS)


@pytest.mark.parametrize("module", [NnxMode, LinenMode])
def test_a_mode_argument_of_the_call_is_set_in_training_and_in_inference(module: Callable[..., Any]) -> None:
    model = of_four(module)
    x = {"x": jnp.arange(12.0).reshape(3, 4)}
    np.testing.assert_allclose(model.apply(model.params, model.state, x)["logits"], x["x"], rtol=1e-4)
    outputs, state = model.train(model.params, model.state, x, jax.random.key(0))
    np.testing.assert_allclose(outputs["logits"].mean(axis=0), 0, atol=1e-5)
    assert not np.allclose(joined(model.state), joined(state))


def test_a_mode_argument_of_a_function_is_set_too() -> None:
    def apply(params: Any, x: jax.Array, deterministic: bool = False) -> jax.Array:
        return x if deterministic else -x

    model = of_four(lambda: ({}, apply))
    x = {"x": jnp.ones((3, 4))}
    np.testing.assert_array_equal(model.apply({}, {}, x)["logits"], x["x"])
    np.testing.assert_array_equal(model.train({}, {}, x, jax.random.key(0))[0]["logits"], -x["x"])


class Noisy(linen.Module):
    """It draws from a stream of a name of its own."""

    @linen.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return linen.Dense(3)(x + jax.random.normal(self.make_rng("noise"), x.shape) if train else x)


def test_a_random_stream_of_any_name_gets_keys_in_training() -> None:
    model = of_four(Noisy)
    x = {"x": jnp.ones((3, 4))}
    first, again, other = (
        model.train(model.params, model.state, x, jax.random.key(seed))[0]["logits"] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


class Recurrent(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.rnn = nnx.RNN(nnx.LSTMCell(4, 3, rngs=rngs))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.rnn(x)


def test_a_module_with_random_streams_is_evaluated_in_a_trace() -> None:
    model = build_model(
        Recurrent,
        {},
        {"x": jax.ShapeDtypeStruct((2, 5, 4), jnp.float32)},
        seed=0,
        outputs=LOGITS,
    )
    x = {"x": jnp.ones((2, 5, 4))}
    for _ in range(2):
        shapes = jax.eval_shape(model.apply, model.params, model.state, x)
        assert shapes["logits"].shape == (2, 5, 3)
    trained, _ = jax.jit(model.train)(model.params, model.state, x, jax.random.key(0))
    assert trained["logits"].shape == (2, 5, 3)
