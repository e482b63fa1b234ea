from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploycheck.serving.batching import batch_sizes
from deploycheck.serving.runtimes._xla_engine import XlaEngine
from deploycheck.serving.runtimes.xla import XLA
from deploycheck.stages.network import Network, TensorSpec
from deploycheck.store import open_artifact, write_manifest
from tests.serving.models import expected


@pytest.fixture(scope="module")
def engine(artifact: Path) -> XlaEngine:
    made = XlaEngine(open_artifact(artifact), batch_sizes(6))
    made.compile()
    return made


@contextmanager
def counted_compilations() -> Iterator[list[str]]:
    """Collect an entry for each program that XLA compiles, by JAX's own account."""
    seen: list[str] = []

    def listen(event: str, _seconds: float, **_more: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_an_engine_compiles_each_size_once_and_none_later(artifact: Path, images: np.ndarray) -> None:
    made = XlaEngine(open_artifact(artifact), batch_sizes(6))
    heard: list[None] = []
    made.on_compile = lambda: heard.append(None)
    made.compile()
    assert len(heard) == len(made.sizes) == 4
    with counted_compilations() as compiled:
        for count in (1, 2, 3, 4, 5, 6, 5, 1):
            made.run({"image": images[:count]})
        assert compiled == []
        jax.jit(lambda x: x + 3)(images).block_until_ready()
        assert compiled, "the count itself is blind"
        assert len(heard) > 4, "what is compiled later must be heard too"


@given(count=st.integers(1, 6), seed=st.integers(0, 2**32 - 1))
def test_padding_changes_neither_number_nor_answers(engine: XlaEngine, count: int, seed: int) -> None:
    images = np.random.default_rng(seed).normal(size=(count, 4, 4, 1)).astype(np.float32)
    logits = engine.run({"image": images})["logits"]
    assert logits.shape == (count, 3)
    np.testing.assert_allclose(logits, expected(images), rtol=1e-4, atol=1e-4)


def test_a_model_of_64_bits_answers_in_64_bits(tmp_path: Path) -> None:
    kernel = np.random.default_rng(1).normal(size=(4, 3))
    network = Network({"kernel": kernel}, lambda weights, inputs: {"y": inputs["x"] @ weights["kernel"]})
    with jax.enable_x64(True):
        XLA.export(network, {"x": TensorSpec((4,), "float32")}, "doubles", tmp_path)
    write_manifest(tmp_path, "model", "0" * 64, {})
    assert not jax.config.jax_enable_x64
    made = XlaEngine(open_artifact(tmp_path), (2,))
    made.compile()
    x = np.random.default_rng(2).normal(size=(2, 4)).astype(np.float32)
    np.testing.assert_allclose(made.run({"x": x})["y"], x.astype(np.float64) @ kernel, rtol=1e-13)
    assert not jax.config.jax_enable_x64
