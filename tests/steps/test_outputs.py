"""Exporting, what the export answers, and what it should answer."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.serving import invariance, opening, predict
from deploycheck.serving.runtimes._xla_engine import XlaEngine
from deploycheck.serving.runtimes.xla import XLA
from deploycheck.serving.signature import read_signature
from deploycheck.stages.network import Network, TensorSpec
from deploycheck.steps import STEP_KINDS, outputs
from deploycheck.steps.expected_outputs import ExpectedOutputsSettings
from deploycheck.steps.model import ModelSettings
from deploycheck.steps.outputs import OutputsSettings, read_outputs
from deploycheck.store import Artifact, loadable_until, open_artifact, write_manifest
from deploycheck.store.arrays import write_arrays
from tests.steps.making import USES, Steps

XLA_OUTPUTS = OutputsSettings(runtime="xla", task="classification", variant="trained")


def test_an_export_has_the_name_of_the_spec_and_a_last_day(model: Artifact) -> None:
    signature = read_signature(model.file("signature.json"))
    assert (signature.model, signature.runtime) == ("clusters", "xla")
    assert [(tensor.name, tensor.shape) for tensor in signature.inputs] == [("x", (4,))]
    assert XLA.lasts is not None
    exported = date.fromisoformat(model.meta["exported"])
    assert loadable_until(model) == exported + XLA.lasts
    assert "lifetime.json" in model.files
    assert exported <= datetime.now(UTC).date()


class Lasting:
    """A runtime whose exports last for ever; it writes one file, or fails."""

    name = "lasting"
    lasts: timedelta | None = None
    error: Exception | None = None

    def export(self, network: Any, inputs: Any, name: str, folder: Path) -> None:
        if self.error:
            raise self.error
        (folder / "program").write_text(name)

    def engine(self, artifact: Any, sizes: Any) -> Any:
        raise AssertionError


def test_an_export_that_lasts_has_no_last_day(chain: Steps, trained: Artifact, tmp_path: Path) -> None:
    extensions = replace(chain.extensions, runtimes={"lasting": Lasting()})
    settings = ModelSettings(model="clusters", runtime="lasting", uses=USES)
    artifact = Steps(tmp_path, extensions).make("model", settings, weights=trained)
    assert loadable_until(artifact) is None
    assert artifact.file("program").read_text() == "clusters"


def test_a_model_that_can_not_be_exported_is_named_by_its_runtime(
    chain: Steps, trained: Artifact, tmp_path: Path
) -> None:
    runtime = Lasting()
    runtime.error = DeploycheckError("it has no name for this type")
    extensions = replace(chain.extensions, runtimes={"lasting": runtime})
    settings = ModelSettings(model="clusters", runtime="lasting", uses=USES)
    with pytest.raises(DeploycheckError, match="lasting: it has no name for this type"):
        Steps(tmp_path, extensions).make("model", settings, weights=trained)


def test_the_export_answers_as_the_model_in_memory_does(
    chain: Steps, data: Artifact, trained: Artifact, model: Artifact
) -> None:
    answered = chain.make("outputs", XLA_OUTPUTS, data=data, model=model)
    expected = chain.make("expected_outputs", ExpectedOutputsSettings(uses=USES), data=data, weights=trained)
    assert answered.meta == {"model": model.digest, "outputs": ["logits"]}
    assert expected.meta == {"weights": trained.digest}
    logits = STEP_KINDS["outputs"].subjects["outputs"].read(answered, "trained")
    assert logits.shape == (18, 3)
    np.testing.assert_allclose(logits, read_outputs(expected)["logits"], rtol=1e-5, atol=1e-5)


def damaged(model: Artifact, folder: Path, *, noticed: bool) -> Artifact:
    """Return a copy of an export with a cut program, of which its manifest knows or not."""
    shutil.copytree(model.path, folder)
    program = max(
        (folder / name for name in model.files if "weights" not in name), key=lambda file: file.stat().st_size
    )
    program.write_bytes(program.read_bytes()[:100])
    if noticed:
        return replace(model, path=folder)
    (folder / "manifest.json").unlink()
    return write_manifest(folder, model.kind, model.key, model.meta)


@pytest.mark.parametrize("noticed", [True, False])
def test_a_damaged_export_is_an_error_of_its_own(
    noticed: bool, chain: Steps, data: Artifact, model: Artifact, tmp_path: Path
) -> None:
    cut = damaged(model, tmp_path / "cut", noticed=noticed)
    with pytest.raises(DeploycheckError) as raised:
        Steps(tmp_path, chain.extensions).make("outputs", XLA_OUTPUTS, data=data, model=cut)
    assert raised.value.what.startswith("the exported artifact can't answer the test split: ")
    assert ("is damaged: expected sha256" in raised.value.what) is noticed


def test_an_error_of_a_runtime_is_one_of_the_export_and_its_traceback_is_shown(
    chain: Steps,
    data: Artifact,
    model: Artifact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(_engine: XlaEngine, _inputs: Any) -> Any:
        raise ValueError("too wide\nand more")

    monkeypatch.setattr(XlaEngine, "run", run)
    with pytest.raises(DeploycheckError, match=r"can't answer the test split: ValueError: too wide$"):
        Steps(tmp_path, chain.extensions).make("outputs", XLA_OUTPUTS, data=data, model=model)
    assert "Traceback" in capsys.readouterr().err


def centred_by_the_batch(weights: Any, inputs: Any) -> Any:
    x = inputs["x"] - inputs["x"].mean(axis=0)
    return {"logits": x @ weights["params/w"]}


@pytest.fixture
def dependent(tmp_path: Path) -> Artifact:
    """An export whose answers depend on their batch."""
    folder = tmp_path / "dependent"
    folder.mkdir()
    network = Network({"params/w": jnp.ones((4, 3))}, centred_by_the_batch)
    XLA.export(network, {"x": TensorSpec((4,), "float32")}, "clusters", folder)
    return write_manifest(folder, "model", "0" * 64, {})


@pytest.mark.parametrize("variant", ["trained", "int8"])
def test_a_variant_whose_answers_depend_on_their_batch_does_not_complete(
    variant: str, chain: Steps, data: Artifact, dependent: Artifact, tmp_path: Path
) -> None:
    settings = OutputsSettings(runtime="xla", task="classification", variant=variant)
    with pytest.raises(
        DeploycheckError, match=r"^an answer depends on its batch: test example \d+ is answered"
    ) as raised:
        Steps(tmp_path, chain.extensions).make("outputs", settings, data=data, model=dependent)
    assert "normalise by statistics of the training" in raised.value.hint


def test_what_is_promoted_already_is_not_refused(
    chain: Steps, data: Artifact, dependent: Artifact, tmp_path: Path
) -> None:
    settings = OutputsSettings(runtime="xla", task="classification", variant="baseline")
    assert Steps(tmp_path, chain.extensions).make("outputs", settings, data=data, model=dependent)


def test_the_runtime_is_looked_for_in_the_files_that_declare_extensions(
    chain: Steps, data: Artifact, model: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(opening, "open_compiled", lambda *given: opened.append(given))
    monkeypatch.setattr(predict, "predict", lambda *_: None)
    monkeypatch.setattr(invariance, "find_dependence", lambda *_, classes: "")
    extensions = replace(chain.extensions, files=(Path("/a/conftest.py"), Path("/b.py")))
    Steps(tmp_path, extensions).make("outputs", XLA_OUTPUTS, data=data, model=model)
    assert opened == [(model.path, extensions.files, invariance.SIZES)]


def test_one_engine_answers_the_split_and_the_sample(
    chain: Steps, data: Artifact, model: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_all, compiled = XlaEngine.compile, []
    monkeypatch.setattr(XlaEngine, "compile", lambda engine: compiled.append(engine.sizes) or compile_all(engine))
    Steps(tmp_path, chain.extensions).make("outputs", XLA_OUTPUTS, data=data, model=model)
    assert compiled == [(1, 16, 64)]


def test_the_first_output_of_several_is_what_metrics_are_given(tmp_path: Path) -> None:
    arrays = {"features": np.zeros((2, 5)), "logits": np.ones((2, 3))}
    write_arrays(arrays, tmp_path / outputs.OUTPUTS)
    write_manifest(tmp_path, "outputs", "0" * 64, {"outputs": ["logits", "features"]})
    np.testing.assert_array_equal(outputs.main_output(open_artifact(tmp_path), "int8"), arrays["logits"])
