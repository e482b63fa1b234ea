from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.stages.model import Model, Network, to_network
from deploycheck.stages.preprocess import apply_all
from deploycheck.stages.quantize import compress, rewrite

INT8 = {"weights": "int8", "activations": "int8"}


@pytest.fixture
def network(builder: Callable[[int], Model]) -> Network:
    return to_network(builder(0), apply_all([]), {})


@pytest.mark.parametrize("options", [INT8, {"weights": "int8"}], ids=["activations", "weights-only"])
def test_every_form_is_quantised_and_stays_close(
    options: dict[str, str], network: Network, stripes: tuple[np.ndarray, np.ndarray]
) -> None:
    inputs = {"image": stripes[0][:32]}
    small = compress(network, options, inputs, "compress")
    before, after = network.apply(network.weights, inputs), small.apply(small.weights, inputs)
    assert 0 < float(jnp.abs(before - after).max()) < 0.05 * float(jnp.abs(before).max())


def test_kernels_are_int8_and_the_rest_is_untouched(network: Network, stripes: tuple[np.ndarray, np.ndarray]) -> None:
    small = compress(network, INT8, {"image": stripes[0][:2]}, "compress")
    kernels = [name for name, array in network.weights.items() if array.ndim > 1]
    assert len(kernels) == 2
    for name in kernels:
        assert name not in small.weights
        assert small.weights[name + "/qvalue"].dtype == jnp.int8
        assert small.weights[name + "/qvalue"].shape == network.weights[name].shape
    untouched = set(network.weights) - set(kernels)
    assert untouched <= set(small.weights)


def test_the_program_multiplies_in_int8(network: Network, stripes: tuple[np.ndarray, np.ndarray]) -> None:
    inputs = {"image": stripes[0][:2]}
    small = compress(network, INT8, inputs, "compress")
    text = jax.jit(small.apply).lower(small.weights, inputs).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line or "stablehlo.convolution" in line]
    assert len(products) == 2
    assert all("xi8>" in line for line in products)


def test_an_answer_does_not_depend_on_its_neighbours(network: Network, stripes: tuple[np.ndarray, np.ndarray]) -> None:
    small = compress(network, INT8, {"image": stripes[0][:2]}, "compress")
    loud = np.concatenate([stripes[0][:1], 1000 * stripes[0][1:2]])
    alone = small.apply(small.weights, {"image": stripes[0][:1]})
    np.testing.assert_allclose(small.apply(small.weights, {"image": loud})[:1], alone, atol=1e-5)


def test_a_rebuilt_network_is_the_compressed_one(network: Network, stripes: tuple[np.ndarray, np.ndarray]) -> None:
    inputs = {"image": stripes[0][:4]}
    small = compress(network, INT8, inputs, "compress")
    again = rewrite(network.apply, INT8)
    np.testing.assert_array_equal(again(small.weights, inputs), small.apply(small.weights, inputs))


def test_tied_weights_are_quantised_once() -> None:
    network = Network({"e": jnp.eye(4) * 3}, lambda weights, inputs: (inputs["x"] @ weights["e"]) @ weights["e"].T)
    x = {"x": jnp.arange(8.0).reshape(2, 4)}
    small = compress(network, INT8, x, "compress")
    assert sorted(small.weights) == ["e/qvalue", "e/scale"]
    np.testing.assert_allclose(small.apply(small.weights, x), network.apply(network.weights, x), rtol=0.03)


def test_nothing_to_quantise_is_an_error() -> None:
    network = Network({"b": jnp.ones(3)}, lambda weights, inputs: inputs["x"] + weights["b"])
    with pytest.raises(DeploycheckError, match="nothing to quantise"):
        compress(network, INT8, {"x": jnp.ones((2, 3))}, "compress[int8]")
