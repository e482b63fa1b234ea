"""Exports that are read back: the same function, of the same weights, that can be exported again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.serving.opening import open_compiled
from deploycheck.serving.runtimes import BUILT_IN, ReadsBack, Runtime
from deploycheck.serving.runtimes.onnxruntime import ONNXRUNTIME
from deploycheck.serving.runtimes.xla import XLA
from deploycheck.serving.signature import read_signature
from deploycheck.stages.model import to_network
from deploycheck.stages.network import Network, TensorSpec
from deploycheck.stages.quantization import quantize_weights
from deploycheck.store import Artifact, write_manifest
from tests.serving.models import KEY
from tests.serving.runtimes.networks import INPUTS, NETWORKS
from tests.stages.networks import from_function
from tests.stages.quantization.making import options
from tests.stages.quantization.reached import PAIRS, STEPS, WIDTH, WORDS, normal

PATHS = [(XLA, XLA), (ONNXRUNTIME, XLA), (ONNXRUNTIME, ONNXRUNTIME)]
"""From which runtime's export to which other's a model can go."""
NAMES = [f"{first.name} to {second.name}" for first, second in PATHS]


def exported(runtime: Runtime, network: Network, folder: Path, inputs: Mapping[str, TensorSpec] = INPUTS) -> Artifact:
    folder.mkdir()
    runtime.export(network, inputs, "net", folder)
    return write_manifest(folder, "model", KEY, {})


def answers(artifact: Artifact, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    return open_compiled(artifact.path, (), (len(next(iter(inputs.values()))),)).run(inputs)["logits"]


@pytest.mark.parametrize(("first", "second"), PATHS, ids=NAMES)
@pytest.mark.parametrize("form", NETWORKS)
def test_a_model_is_the_same_after_it_was_exported_twice(form: str, first: Any, second: Any, tmp_path: Path) -> None:
    network = NETWORKS[form](0)
    once = exported(first, network, tmp_path / "once")
    again = first.network(once)
    assert again.weights.keys() == network.weights.keys()
    for name, array in network.weights.items():
        np.testing.assert_array_equal(again.weights[name], array)
    twice = exported(second, again, tmp_path / "twice")
    images = {"image": np.asarray(normal(5, 6, 6, 1))}
    np.testing.assert_allclose(answers(twice, images), answers(once, images), rtol=1e-5, atol=1e-6)
    assert exported(second, first.network(once), tmp_path / "same").files == twice.files


@pytest.mark.parametrize(("first", "second"), PATHS, ids=NAMES)
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("stacked layers", {"weights": "int8", "activations": "int8"}),
        ("tied embedding", {"weights": "int8", "activations": "int8"}),
        ("tied embedding", {"weights": "int4", "per": {"group": 4}}),
        ("tied embedding", {"weights": "fp8"}),
    ],
    ids=["int8 layers", "int8", "int4", "fp8"],
)
def test_quantised_weights_stay_as_small_as_they_were(
    name: str, settings: dict[str, Any], first: Any, second: Any, tmp_path: Path
) -> None:
    make, shape = PAIRS[name]
    params, apply, _, _ = make()
    dtype, x = "float32", np.asarray(normal(3, WIDTH, seed=3))
    if name == "tied embedding":
        dtype, x = "int32", np.random.default_rng(0).integers(0, WORDS, (3, STEPS)).astype(np.int32)
    small = quantize_weights(from_function(params, apply, shape, dtype=jnp.dtype(dtype)), options(**settings))
    inputs = {"x": TensorSpec(shape, dtype)}
    network = to_network(small, lambda _, given: given, {})
    once = exported(first, network, tmp_path / "once", inputs)
    again = first.network(once)
    found, wanted = (jax.jit(each.apply)(each.weights, {"x": x})["logits"] for each in (again, network))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    twice = exported(second, again, tmp_path / "twice", inputs)
    assert twice.files["weights.safetensors"] == once.files["weights.safetensors"]
    rounding = 1e-5 if first is second else 0.02  # runtimes round activations to int8 differently
    np.testing.assert_allclose(answers(twice, {"x": x}), answers(once, {"x": x}), atol=rounding)
    if "activations" in settings:
        assert read_signature(twice.file("signature.json")).rounds


def test_several_inputs_and_outputs_keep_their_names(tmp_path: Path) -> None:
    def apply(weights: Any, inputs: Any) -> dict[str, Any]:
        ids, more = inputs["ids"], inputs["a"]
        hidden = weights["params/table"][ids] + more
        return {"hidden": hidden, "logits": hidden @ weights["params/w"]}

    network = Network({"params/table": normal(7, 3), "params/w": normal(3, 2)}, apply)
    inputs = {"ids": TensorSpec((), "int32"), "a": TensorSpec((3,), "float32")}
    given = {"ids": np.array([1, 6], np.int32), "a": np.ones((2, 3), np.float32)}
    for runtime in BUILT_IN:
        assert isinstance(runtime, ReadsBack)
        again = runtime.network(exported(runtime, network, tmp_path / runtime.name, inputs))
        outputs, wanted = again.apply(again.weights, given), network.apply(network.weights, given)
        assert outputs.keys() == wanted.keys()
        for name, array in wanted.items():
            np.testing.assert_allclose(outputs[name], array, rtol=1e-6)


def test_an_opaque_program_is_for_its_own_runtime_alone(tmp_path: Path) -> None:
    assert (XLA.opaque, ONNXRUNTIME.opaque) == (True, False)
    again = XLA.network(exported(XLA, NETWORKS["function"](0), tmp_path / "once"))
    with pytest.raises(DeploycheckError, match="these operations can't: call_exported"):
        exported(ONNXRUNTIME, again, tmp_path / "twice")


def test_a_program_of_64_bits_needs_them(tmp_path: Path) -> None:
    with jax.enable_x64(True):
        network = Network({"params/w": jnp.ones((4, 2), "float64")}, lambda w, x: {"logits": x["x"] @ w["params/w"]})
        once = exported(XLA, network, tmp_path / "once", {"x": TensorSpec((4,), "float64")})
        assert XLA.network(once).weights["params/w"].dtype == np.float64
    with pytest.raises(DeploycheckError, match="it computes with 64-bit numbers") as refused:
        XLA.network(once)
    assert "JAX_ENABLE_X64=1" in refused.value.hint
