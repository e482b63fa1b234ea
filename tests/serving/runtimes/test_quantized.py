"""Quantised models through the export and the engine: what is served is what was in memory, in fewer bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from deploycheck.serving.opening import open_for_serving
from deploycheck.serving.runtimes.xla import XLA
from deploycheck.stages.model import Model, to_network
from deploycheck.stages.network import TensorSpec
from deploycheck.stages.quantization import quantize_weights
from deploycheck.store import write_manifest
from tests.serving.models import KEY
from tests.stages.networks import from_function
from tests.stages.quantization.making import options, run
from tests.stages.quantization.reached import PAIRS, STEPS, WIDTH, WORDS, normal


def written(model: Model, tensor: TensorSpec, folder: Path) -> int:
    """Export a model into ``folder``; return its bytes on disk."""
    folder.mkdir()
    XLA.export(to_network(model, lambda _, inputs: inputs, {}), {"x": tensor}, "net", folder)
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.parametrize(
    "settings",
    [{"weights": "int8", "activations": "int8"}, {"weights": "int4", "per": {"group": 4}}, {"weights": "fp8"}],
    ids=lambda settings: settings["weights"],
)
@pytest.mark.parametrize("name", ["stacked layers", "tied embedding"])
def test_what_is_served_is_what_was_in_memory(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    make, shape = PAIRS[name]
    params, apply, _, _ = make()
    dtype, x = "float32", np.asarray(normal(3, WIDTH, seed=3))
    if name == "tied embedding":
        dtype, x = "int32", np.random.default_rng(0).integers(0, WORDS, (3, STEPS)).astype(np.int32)
    small = quantize_weights(from_function(params, apply, shape, dtype=jnp.dtype(dtype)), options(**settings))
    written(small, TensorSpec(shape, dtype), tmp_path / "small")
    write_manifest(tmp_path / "small", "model", KEY, {})
    engine = open_for_serving(tmp_path / "small", (), (3,))
    engine.compile()
    np.testing.assert_allclose(engine.run({"x": x})["logits"], run(small, {"x": x})["logits"], atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({}, 0.27),
        ({"weights": "int4"}, 0.15),
        ({"weights": "int4", "per": {"group": 64}}, 0.155),
        ({"weights": "fp8"}, 0.27),
    ],
    ids=["int8", "int4", "int4 in groups", "fp8"],
)
def test_fewer_bits_are_fewer_bytes_on_disk(settings: dict[str, Any], most: float, tmp_path: Path) -> None:
    params = [normal(*shape) for shape in ((128, 192), (192, 192), (192, 192), (192, 64), (64, 10))]
    assert 100_000 < sum(kernel.size for kernel in params) < 112_000

    def apply(params: Any, x: Any) -> Any:
        for kernel in params[:-1]:
            x = jnp.tanh(x @ kernel)
        return x @ params[-1]

    model, tensor = from_function(params, apply, (128,)), TensorSpec((128,), "float32")
    before = written(model, tensor, tmp_path / "float")
    assert written(quantize_weights(model, options(**settings)), tensor, tmp_path / "small") <= most * before
