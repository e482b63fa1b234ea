from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from deploycheck.serving import predict
from deploycheck.serving.runtime import Engine, LoadError, batch_sizes, load
from deploycheck.store import CorruptArtifact, write_manifest
from tests.serving.models import KERNEL, KEY, SIGNATURE, expected, flip_a_byte, write_artifact


@pytest.fixture(scope="module")
def engine(artifact: Path) -> Engine:
    made = Engine(load(artifact), batch_sizes(6))
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


@given(st.integers(1, 5000), st.data())
def test_every_batch_fits_a_compiled_size_of_less_than_twice_its_own(largest: int, data: st.DataObject) -> None:
    sizes = batch_sizes(largest)
    assert sizes == tuple(sorted(set(sizes)))
    assert sizes[-1] == largest
    count = data.draw(st.integers(1, largest))
    fitting = next(size for size in sizes if size >= count)
    assert fitting < 2 * count
    assert len(sizes) <= 2 + largest.bit_length()


def test_an_engine_compiles_each_size_once_and_none_later(artifact: Path, images: np.ndarray) -> None:
    made = Engine(load(artifact), batch_sizes(6))
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
def test_padding_changes_neither_number_nor_answers(engine: Engine, count: int, seed: int) -> None:
    images = np.random.default_rng(seed).normal(size=(count, 4, 4, 1)).astype(np.float32)
    logits = engine.run({"image": images})["logits"]
    assert logits.shape == (count, 3)
    np.testing.assert_allclose(logits, expected(images), rtol=1e-4, atol=1e-4)


def test_what_is_loaded_is_what_was_exported(artifact: Path) -> None:
    loaded = load(artifact)
    assert loaded.signature == SIGNATURE
    np.testing.assert_array_equal(loaded.weights["params/kernel"], KERNEL)


@pytest.mark.parametrize("name", ["weights.safetensors", "model.jax_export", "signature.json"])
def test_a_damaged_file_is_found_before_anything_is_deserialised(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_: bytearray) -> None:
        raise AssertionError("it was deserialised")

    flip_a_byte(write_artifact(tmp_path) / name)
    monkeypatch.setattr("deploycheck.serving.runtime.export.deserialize", never)
    monkeypatch.setattr("deploycheck.serving.runtime.load_file", never)
    with pytest.raises(CorruptArtifact, match=name):
        load(tmp_path)


@pytest.mark.parametrize("name", ["weights.safetensors", "model.jax_export", "signature.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write_artifact(tmp_path) / name).unlink()
    write_manifest(tmp_path, "model", KEY, {})
    with pytest.raises(CorruptArtifact, match=name):
        load(tmp_path)


def test_an_artifact_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="kind 'weights', expected an exported model"):
        load(write_artifact(tmp_path, kind="weights"))


def test_a_model_is_loaded_until_its_last_day_and_refused_from_the_next(tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    write_artifact(tmp_path, meta={"loadable_until": (today + timedelta(days=1)).isoformat()})
    load(tmp_path)
    yesterday = (today - timedelta(days=1)).isoformat()
    write_manifest(tmp_path, "model", KEY, {"loadable_until": yesterday})
    with pytest.raises(LoadError, match=f"could be loaded until {yesterday}") as refused:
        load(tmp_path)
    assert "exported anew" in refused.value.hint


def test_a_model_for_another_kind_of_device_is_refused(tmp_path: Path) -> None:
    signature = write_artifact(tmp_path) / "signature.json"
    signature.write_text(json.dumps({**json.loads(signature.read_text()), "platforms": ["tpu"]}))
    write_manifest(tmp_path, "model", KEY, {})
    with pytest.raises(LoadError, match="was exported for tpu, this process runs on cpu"):
        load(tmp_path)


def test_predict_answers_a_split_that_is_no_multiple_of_its_batch(artifact: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(3).normal(size=(predict.BATCH + 5, 4, 4, 1)).astype(np.float32)
    save_file({"inputs/image": images, "labels": np.zeros(len(images))}, tmp_path / "examples")
    predict.main(artifact, tmp_path / "examples", tmp_path / "answers")
    answers = load_file(tmp_path / "answers")
    assert list(answers) == ["logits"]
    np.testing.assert_allclose(answers["logits"], expected(images), rtol=1e-4, atol=1e-4)
