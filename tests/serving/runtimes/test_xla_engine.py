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
from deploycheck.store import open_artifact
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
