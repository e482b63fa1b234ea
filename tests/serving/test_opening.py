"""What an exported model is held to before any of it is loaded."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.serving.opening import LoadError, open_for_serving
from deploycheck.serving.runtimes import Engine
from deploycheck.store import CorruptArtifact, write_manifest
from tests.serving.models import KEY, SIGNATURE, flip_a_byte, write_artifact

FILES = ["weights.safetensors", "model.jax_export.gz", "signature.json"]


def open_it(folder: Path) -> Engine:
    return open_for_serving(folder, (), (1,))


def rewrite_signature(folder: Path, **changes: object) -> None:
    """Change facts in an artifact's signature, or remove those that are None; its manifest is that of the result."""
    file = folder / "signature.json"
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
    write_manifest(folder, "model", KEY, {})


def test_the_engine_is_that_of_the_runtime_that_the_signature_names(artifact: Path) -> None:
    engine = open_it(artifact)
    assert isinstance(engine, Engine)
    assert engine.signature == SIGNATURE
    assert engine.artifact.path == artifact
    assert json.loads((artifact / "signature.json").read_text())["runtime"] == "xla"


def test_a_signature_that_names_no_runtime_means_xla(tmp_path: Path) -> None:
    rewrite_signature(write_artifact(tmp_path), runtime=None)
    assert open_it(tmp_path).signature == SIGNATURE


def test_a_runtime_that_is_not_installed_is_named(tmp_path: Path) -> None:
    rewrite_signature(write_artifact(tmp_path), runtime="onyx")
    with pytest.raises(DeploycheckError, match="there is no runtime 'onyx', only xla") as caught:
        open_it(tmp_path)
    assert caught.value.where == str(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_found_before_anything_is_deserialised(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it was deserialised")

    flip_a_byte(write_artifact(tmp_path) / name)
    monkeypatch.setattr("deploycheck.serving.runtimes._xla_engine.export.deserialize", never)
    monkeypatch.setattr("deploycheck.serving.runtimes._xla_engine.read_weights", never)
    monkeypatch.setattr("deploycheck.serving.opening.read_signature", never)
    with pytest.raises(CorruptArtifact, match=name):
        open_it(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write_artifact(tmp_path) / name).unlink()
    write_manifest(tmp_path, "model", KEY, {})
    with pytest.raises(CorruptArtifact, match=name):
        open_it(tmp_path)


def test_an_artifact_that_is_not_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="kind 'weights', expected an exported model"):
        open_it(write_artifact(tmp_path, kind="weights"))


def test_a_model_is_loaded_until_its_last_day_and_refused_from_the_next(tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    write_artifact(tmp_path, meta={"loadable_until": (today + timedelta(days=1)).isoformat()})
    open_it(tmp_path)
    yesterday = (today - timedelta(days=1)).isoformat()
    write_manifest(tmp_path, "model", KEY, {"loadable_until": yesterday})
    with pytest.raises(LoadError, match=f"could be loaded until {yesterday}") as refused:
        open_it(tmp_path)
    assert "exports the model again" in refused.value.hint


def test_whatever_a_runtime_raises_names_the_runtime_and_the_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such op")

    monkeypatch.setattr("deploycheck.serving.runtimes._xla_engine.export.deserialize", fail)
    with pytest.raises(LoadError, match="the runtime 'xla' can't load it: RuntimeError: no such op") as caught:
        open_it(write_artifact(tmp_path))
    assert caught.value.where == str(tmp_path)


def test_a_model_for_another_kind_of_device_is_refused(tmp_path: Path) -> None:
    rewrite_signature(write_artifact(tmp_path), platforms=["tpu"])
    with pytest.raises(DeploycheckError, match="was exported for tpu, this process runs on cpu"):
        open_it(tmp_path)
