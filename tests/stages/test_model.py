from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.stages.model import Model, build_model, flatten, predictor, to_network
from deploycheck.stages.preprocess import apply_all


def test_every_form_gives_logits_and_trains(
    builder: Callable[[int], Model], stripes: tuple[np.ndarray, np.ndarray]
) -> None:
    model = builder(0)
    inputs = {"image": stripes[0][:8]}
    assert model.apply(model.params, model.state, inputs).shape == (8, 3)
    logits, state = model.train(model.params, model.state, inputs, jax.random.key(1))
    assert logits.shape == (8, 3)
    assert jax.tree.structure(state) == jax.tree.structure(model.state)


def test_inference_answers_each_example_alone(
    builder: Callable[[int], Model], stripes: tuple[np.ndarray, np.ndarray]
) -> None:
    model = builder(0)
    together = model.apply(model.params, model.state, {"image": stripes[0][:8]})
    alone = model.apply(model.params, model.state, {"image": stripes[0][3:4]})
    np.testing.assert_allclose(together[3:4], alone, atol=1e-5)


def test_seeds_differ_and_repeat(builder: Callable[[int], Model]) -> None:
    def weights(seed: int) -> np.ndarray:
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(builder(seed).params)])

    np.testing.assert_array_equal(weights(1), weights(1))
    assert not np.array_equal(weights(1), weights(2))


def test_training_mode_drops_out_and_inference_does_not(stripes: tuple[np.ndarray, np.ndarray]) -> None:
    from tests.stages.conftest import BUILDERS

    example = {"image": stripes[0][:8]}
    for form in ("nnx", "linen"):
        model = build_model(BUILDERS[form], {}, example, 0, where="model")
        one, _ = model.train(model.params, model.state, example, jax.random.key(1))
        other, _ = model.train(model.params, model.state, example, jax.random.key(2))
        assert not np.allclose(one, other), form
        first, second = (model.apply(model.params, model.state, example) for _ in range(2))
        np.testing.assert_array_equal(first, second)


def test_running_statistics_move_in_training(stripes: tuple[np.ndarray, np.ndarray]) -> None:
    from tests.stages.conftest import BUILDERS

    example = {"image": stripes[0][:8]}
    for form in ("nnx", "linen"):
        model = build_model(BUILDERS[form], {}, example, 0, where="model")
        _, state = model.train(model.params, model.state, example, jax.random.key(1))
        before, after = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(s)]) for s in (model.state, state))
        assert not np.allclose(before, after), form


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(DeploycheckError, match="it returned int, which is no model"):
        build_model(lambda: 3, {}, {"image": np.zeros((1, 2))}, 0, where="specs/a.yaml: model.build")


def test_weights_are_named_by_path_and_come_back() -> None:
    tree = {"layers": [{"kernel": np.ones((2, 3))}, {"kernel": np.zeros(4)}]}
    weights, restore = flatten(tree)
    assert sorted(weights) == ["layers/0/kernel", "layers/1/kernel"]
    again = restore(weights)
    np.testing.assert_array_equal(again["layers"][0]["kernel"], tree["layers"][0]["kernel"])


@pytest.mark.parametrize("count", [1, 7, 8, 9])
def test_prediction_in_batches_is_prediction(
    count: int, builder: Callable[[int], Model], stripes: tuple[np.ndarray, np.ndarray]
) -> None:
    network = to_network(builder(0), apply_all([]), {})
    inputs = {"image": stripes[0][:count]}
    logits = predictor(network.apply, 4)(network.weights, inputs)
    assert logits.shape == (count, 3)
    np.testing.assert_allclose(logits, network.apply(network.weights, inputs), atol=1e-5)
