"""The step that reads a model from a file of the project."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from deploycheck.errors import DeploycheckError
from deploycheck.language.spec import Input
from deploycheck.steps import trained as files
from deploycheck.steps.artifact import PROBABILITIES, ArtifactSettings
from deploycheck.store import Artifact
from tests.planning import built_in
from tests.steps.making import INPUT, PREPROCESS, Steps, training_settings

TEXT = """
    <ir_version: 10, opset_import: ["": 21]>
    net (float[N, 4] x) => (float[N, 3] logits) { h = MatMul(x, hidden)  r = Relu(h)  logits = MatMul(r, out) }"""
ARRAYS = {"hidden": np.full((4, 8), 0.5, np.float32), "out": np.ones((8, 3), np.float32)}


@pytest.fixture
def project(tmp_path: Path) -> Steps:
    (tmp_path / "project").mkdir()
    model = parser.parse_model(TEXT)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in ARRAYS.items())
    onnx.save(model, tmp_path / "project" / "net.onnx")
    return Steps(tmp_path, built_in(tmp_path / "project"))


def settings(**changed: Any) -> ArtifactSettings:
    given = {"artifact": "net.onnx", "sha256": None, "input": INPUT, "task": "classification", "seed": 0}
    return ArtifactSettings(**{**given, "preprocess": PREPROCESS, **changed})


def test_the_artifact_is_the_model_of_the_file(project: Steps, data: Artifact, tmp_path: Path) -> None:
    artifact = project.make("artifact", settings(), data=data)
    model = files.read(artifact, project.extensions).model
    np.testing.assert_array_equal(model.weights["params/hidden"], ARRAYS["hidden"])
    digest = hashlib.sha256((tmp_path / "project" / "net.onnx").read_bytes()).hexdigest()
    assert artifact.meta["sha256"] == digest
    assert artifact.meta["remarks"] == [f"model of net.onnx, sha256:{digest[:12]}"]
    x = np.ones((2, 4), np.float32)
    np.testing.assert_allclose(model.apply(model.params, model.state, {"x": x})["logits"], np.full((2, 3), 16.0))


def test_a_model_in_two_files_has_the_digest_of_both(project: Steps, data: Artifact, tmp_path: Path) -> None:
    root = tmp_path / "project"
    onnx.save(
        onnx.load(root / "net.onnx"), root / "two.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    artifact = project.make("artifact", settings(artifact="two.onnx"), data=data)
    lines = [f"{hashlib.sha256((root / name).read_bytes()).hexdigest()}  {name}\n" for name in ("two.onnx", "w.bin")]
    assert artifact.meta["sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_probabilities_in_place_of_logits_are_noted(project: Steps, data: Artifact, tmp_path: Path) -> None:
    model = onnx.load(tmp_path / "project" / "net.onnx")
    model.graph.node[-1].output[0] = "raw"
    model.graph.node.append(onnx.helper.make_node("Softmax", ["raw"], ["logits"]))
    onnx.save(model, tmp_path / "project" / "soft.onnx")
    artifact = project.make("artifact", settings(artifact="soft.onnx"), data=data)
    assert artifact.meta["remarks"][1:] == [PROBABILITIES]


def test_a_training_starts_from_the_file(project: Steps, data: Artifact) -> None:
    start = project.make("artifact", settings(), data=data)
    still = training_settings().train.model_copy(update={"optimizer": {"sgd": {"learning_rate": 0.0}}, "epochs": 1})
    changed = training_settings(train=still, build=None, arguments={}, artifact="net.onnx")
    artifact = project.make("training", changed, "training", data=data, start=start)
    model = files.read(artifact, project.extensions).model
    np.testing.assert_array_equal(model.weights["params/out"], ARRAYS["out"])


def test_a_student_is_built_by_its_own_code(project: Steps, data: Artifact) -> None:
    source = files.read(project.make("artifact", settings(), data=data), project.extensions)
    build = files.builder(source.config, source.fitted, project.extensions)
    student = build("tests.steps.users:build", {"width": 2})
    assert student.weights["params/hidden"].shape == (4, 2)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"sha256": "0" * 64}, "net.onnx: its sha256 is .*, the spec has 0000"),
        ({"artifact": "../net.onnx"}, "../net.onnx is outside of the project"),
        ({"artifact": "none.onnx"}, "none.onnx: it can't be read as an ONNX file"),
        ({"input": {"x": Input(shape=(5,), dtype="float32")}, "preprocess": ()}, "net.onnx: its input 'x' is"),
    ],
)
def test_what_is_wrong_with_the_file_is_said(
    project: Steps, data: Artifact, changed: dict[str, Any], says: str
) -> None:
    with pytest.raises(DeploycheckError, match=says):
        project.make("artifact", settings(**changed), data=data)


def test_a_missing_library_is_named_with_its_extra(
    project: Steps, data: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("deploycheck.stages.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(DeploycheckError, match=r"`model\.artifact` needs onnx") as refused:
        project.make("artifact", settings(), data=data)
    assert refused.value.hint == "pip install 'deploycheck[onnx]'"
