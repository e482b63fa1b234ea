"""The answers of exported models: those of the network itself, for any batch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from deploycheck.serving.opening import open_compiled
from deploycheck.serving.runtimes import Engine
from deploycheck.serving.runtimes.onnxruntime import ONNXRUNTIME
from deploycheck.stages.methods.quantize import QuantizeOptions
from deploycheck.stages.model import build_model, to_network
from deploycheck.stages.network import Inputs, Network, TensorSpec
from deploycheck.stages.quantization import quantize_weights
from deploycheck.store import write_manifest
from deploycheck.store.weights import Stored, read_layout
from tests.serving.models import KEY

SIZES = (1, 8, 33)
PRECISIONS: dict[str, QuantizeOptions] = {
    "int8-weights": QuantizeOptions(weights="int8"),
    "int8": QuantizeOptions(weights="int8", activations="int8"),
    "int4": QuantizeOptions(weights="int4"),
    "fp8": QuantizeOptions(weights="fp8"),
}
CASES = [
    *((name, precision) for name in ("cnn", "mlp", "encoder") for precision in ("float", "int8-weights", "int8")),
    *(("lstm", "float"), ("lstm", "int8"), ("encoder", "int4"), ("mlp", "fp8")),
]
TOKENS = {"tokens": TensorSpec((6,), "int32")}
IMAGE = {"image": TensorSpec((8, 8, 2), "float32")}


class Cnn(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Conv(2, 8, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.second = nnx.Conv(8, 8, (3, 3), feature_group_count=2, rngs=rngs)
        self.out = nnx.Linear(32, 3, rngs=rngs)

    def __call__(self, image: jax.Array) -> jax.Array:
        image = nnx.relu(self.norm(self.first(image)))
        image = nnx.max_pool(nnx.relu(self.second(image)), (2, 2), strides=(2, 2))
        return self.out(image.reshape(image.shape[0], -1))


class Encoder(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embedding = nnx.Embed(20, 8, rngs=rngs)
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(num_heads=2, in_features=8, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(8, 32, rngs=rngs), nnx.Linear(32, 8, rngs=rngs)
        self.out = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = self.embedding(tokens)
        x = x + self.attention(self.norm(x), mask=(tokens > 2)[:, None, None, :])
        x = x + self.down(nnx.gelu(self.up(x)))
        return self.out(x.mean(axis=1))


class Mlp(linen.Module):
    @linen.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        hidden = linen.silu(linen.Dense(16)(image.reshape(image.shape[0], -1)))
        return linen.Dense(3)(linen.LayerNorm()(hidden))


class Recurrent(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embedding = nnx.Embed(20, 8, rngs=rngs)
        self.cells = nnx.RNN(nnx.LSTMCell(8, 8, rngs=rngs))
        self.out = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        return self.out(self.cells(self.embedding(tokens))[:, -1])


Build = Callable[..., Any]
MODELS: dict[str, tuple[Build, dict[str, TensorSpec]]] = {
    "cnn": (lambda rngs: Cnn(rngs), IMAGE),
    "mlp": (lambda: Mlp(), IMAGE),
    "encoder": (lambda rngs: Encoder(rngs), TOKENS),
    "lstm": (lambda rngs: Recurrent(rngs), TOKENS),
}


def network_of(name: str, precision: str) -> tuple[Network, dict[str, TensorSpec]]:
    build, inputs = MODELS[name]
    shapes = {key: jax.ShapeDtypeStruct((2, *each.shape), np.dtype(each.dtype)) for key, each in inputs.items()}
    model = build_model(build, {}, shapes, seed=0, outputs=("logits",))
    if precision != "float":
        model = quantize_weights(model, PRECISIONS[precision])
    return to_network(model, lambda fitted, given: given, {}), inputs


def batch_of(inputs: dict[str, TensorSpec], count: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(count)
    return {
        name: random.normal(size=(count, *each.shape)).astype(np.float32)
        if each.dtype == "float32"
        else random.integers(0, 20, (count, *each.shape)).astype(each.dtype)
        for name, each in inputs.items()
    }


def opened(network: Network, inputs: dict[str, TensorSpec], folder: Path) -> Engine:
    folder.mkdir(exist_ok=True)
    ONNXRUNTIME.export(network, inputs, "net", folder)
    write_manifest(folder, "model", KEY, {})
    return open_compiled(folder, (), SIZES)


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_the_answers_are_the_networks_for_any_batch(name: str, precision: str, tmp_path: Path) -> None:
    network, inputs = network_of(name, precision)
    engine = opened(network, inputs, tmp_path)
    rows = batch_of(inputs, 33)
    expected = jax.jit(network.apply)(network.weights, rows)["logits"]
    scale = np.abs(expected).max()
    for count in range(1, 34):
        found = engine.run({key: each[:count] for key, each in rows.items()})["logits"]
        assert found.dtype == np.float32
        # In 8 bits, a number that is half-way between two codes may become either of them.
        limit = 0.02 if precision == "int8" else 2e-6
        assert np.abs(found - expected[:count]).max() <= limit * scale, count


def test_int8_weights_are_stored_as_such_and_multiplied_as_such(tmp_path: Path) -> None:
    network, inputs = network_of("encoder", "int8")
    opened(network, inputs, tmp_path)
    layout = read_layout(tmp_path / "weights.safetensors")
    assert layout["params/up/kernel/qvalue"] == Stored("plain", (8, 32), "int8")
    assert (tmp_path / "model.onnx").read_bytes().count(b"MatMulInteger") == 7


def test_sparse_and_4_bit_and_narrow_weights_are_read_back(tmp_path: Path) -> None:
    sparse = np.zeros((400, 3), np.float32)
    sparse[::50] = 1.5
    weights = {
        "sparse": sparse,
        "codes": jnp.arange(-6, 6, dtype=jnp.int4).reshape(4, 3),
        "half": jnp.arange(12.0).reshape(4, 3).astype(jnp.bfloat16),
    }

    def apply(weights: Any, inputs: Inputs) -> dict[str, jax.Array]:
        x = inputs["x"]
        codes = x @ (weights["codes"].astype(jnp.float32) * 0.5)
        half = (x.astype(jnp.bfloat16) @ weights["half"]).astype(jnp.float32)
        return {"codes": codes, "half": half, "sparse": jnp.tile(x, (1, 100)) @ weights["sparse"]}

    network = Network(weights, apply)  # type: ignore[arg-type]
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    found = opened(network, {"x": TensorSpec((4,), "float32")}, tmp_path).run({"x": x})
    for name, wanted in network.apply(network.weights, {"x": x}).items():
        np.testing.assert_allclose(found[name], wanted, rtol=4e-3, err_msg=name)
    assert read_layout(tmp_path / "weights.safetensors")["sparse"].form == "sparse"


def test_several_inputs_and_outputs_keep_their_names(tmp_path: Path) -> None:
    """An output has the name of an input, and an input that of a weight."""

    def apply(weights: Any, inputs: Inputs) -> dict[str, jax.Array]:
        return {
            "x": inputs["x"],
            "best": inputs["w"].argmax(axis=1),
            "any": (inputs["x"] > 0),
            "one": jnp.ones_like(inputs["x"]) * weights["w"],
        }

    inputs = {"x": TensorSpec((2,), "float32"), "w": TensorSpec((3,), "int32"), "unused": TensorSpec((), "bool")}
    engine = opened(Network({"w": jnp.float32(4)}, apply), inputs, tmp_path)
    x = np.array([[1.0, np.nan], [-1.0, 0.0]], np.float32)
    found = engine.run({"unused": np.ones(2, bool), "w": np.array([[1, 9, 2], [7, 7, 0]], np.int32), "x": x})
    np.testing.assert_array_equal(found["x"], x)
    np.testing.assert_array_equal(found["best"], [1, 0])
    assert found["best"].dtype == np.int32
    np.testing.assert_array_equal(found["any"], [[True, False], [False, False]])
    np.testing.assert_array_equal(found["one"], np.full((2, 2), 4))


def test_numbers_of_64_bits_are_taken_where_jax_computes_in_32(tmp_path: Path) -> None:
    network = Network({}, lambda weights, inputs: {"y": inputs["x"] * inputs["n"][:, None]})
    engine = opened(network, {"x": TensorSpec((2,), "float64"), "n": TensorSpec((), "int64")}, tmp_path)
    found = engine.run({"x": np.array([[0.5, 2.0]]), "n": np.array([3])})["y"]
    np.testing.assert_array_equal(found, np.array([[1.5, 6.0]], np.float32))
    assert found.dtype == np.float32


def test_rows_that_are_not_beside_each_other_in_memory_are_answered(tmp_path: Path) -> None:
    network = Network({}, lambda weights, inputs: {"y": inputs["x"] * 2})
    engine = opened(network, {"x": TensorSpec((2,), "float32")}, tmp_path)
    x = np.arange(12, dtype=np.float32).reshape(2, 6).T
    np.testing.assert_array_equal(engine.run({"x": x[::2]})["y"], 2 * x[::2])


SERVED = """
import sys
from pathlib import Path
from deploycheck.serving.opening import open_compiled
open_compiled(Path(sys.argv[1]), (), (1, 2))
print({"jax", "onnx", "flax"} & {*sys.modules})
"""


def test_the_engine_needs_neither_jax_nor_onnx(tmp_path: Path) -> None:
    opened(*network_of("mlp", "float"), tmp_path)
    found = subprocess.run([sys.executable, "-c", SERVED, str(tmp_path)], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def test_a_weight_that_is_not_used_is_left_out(tmp_path: Path) -> None:
    weights = {"params/w": jnp.ones((4, 3)), "state/count": jnp.ones(4)}
    network = Network(weights, lambda weights, inputs: {"logits": inputs["x"] @ weights["params/w"]})
    ONNXRUNTIME.export(network, {"x": TensorSpec((4,), "float32")}, "net", tmp_path)
    write_manifest(tmp_path, "model", KEY, {})
    engine = open_compiled(tmp_path, (), (2,))
    np.testing.assert_array_equal(engine.run({"x": np.ones((2, 4), np.float32)})["logits"], np.full((2, 3), 4.0))
    assert read_layout(tmp_path / "weights.safetensors").keys() == {"params/w"}
