"""A model with weights from elsewhere, or one from a file, is gated like one that was trained here."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from threadpoolctl import threadpool_limits

from tests.plugin.conftest import SPEC, Project

DOCS = Path(__file__).parents[2] / "docs"
FILE = re.compile(r"^```\w+ (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("page", "program", "step", "note"),
    [
        ("own-weights.md", "weights.py", "weights", "weights of digits.npz"),
        ("onnx-file.md", "export.py", "artifact", "model of digits.onnx"),
    ],
)
def test_the_project_of_a_page_is_gated_from_its_files_to_promotion(
    project: Project, monkeypatch: pytest.MonkeyPatch, page: str, program: str, step: str, note: str
) -> None:
    root = project.pytester.path
    for name, text in FILE.findall((DOCS / page).read_text()):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    assert len((root / "specs/digits.yaml").read_text().splitlines()) <= 25
    monkeypatch.chdir(root)
    with threadpool_limits(1):  # other tests are at work on the machine, for which the threads would wait
        runpy.run_path(program)
    project.write((root / "specs/digits.yaml").read_text())
    result = project.run("--deploycheck-promote", "spec.yaml")
    assert result.ret == 0
    assert project.spec["decision"] == "promoted"
    result.stdout.fnmatch_lines([f"note: train::completes: {note}, sha256:*"])
    assert {step["step"] for step in project.spec["steps"]} >= {step, "model[int8]"}
    assert "training" not in {step["step"] for step in project.spec["steps"]}


def test_a_training_starts_from_the_weights(project: Project) -> None:
    """One more epoch at a rate of almost nothing keeps a model as good as its weights; by itself it learns nothing."""
    root = project.pytester.path
    project.write(SPEC)
    project.run("spec.yaml::train::completes")
    trained = next(step for step in project.spec["steps"] if step["step"] == "training")
    arrays = load_file(project.cache.parent / trained["path"] / "weights.safetensors")
    save_file(
        {name: np.asarray(array) for name, array in arrays.items() if "preprocess" not in name}, root / "w.safetensors"
    )
    further = SPEC.replace("learning_rate: 5e-3", "learning_rate: 1e-7").replace("epochs: 12", "epochs: 1")
    project.write(further)
    assert project.run("spec.yaml::train::accuracy").ret == 1
    start = "  weights: {load: safetensors, path: w.safetensors}\ndata:\n"
    project.write(further.replace("data:\n", start, 1))
    assert project.run("spec.yaml::train::accuracy").ret == 0
    assert {"weights", "training"} <= {step["step"] for step in project.spec["steps"]}
