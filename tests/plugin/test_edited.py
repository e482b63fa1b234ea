"""What is decided on is what was collected, whatever becomes of the spec's file while its checks run."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Project

MODEL = """
import numpy as np
import jax.numpy as jnp

def build():
    return {"w": jnp.eye(4)[:, :3]}, lambda params, x: x @ params["w"]

def load():
    labels = np.arange(300) % 3
    return np.eye(4)[labels].astype(np.float32), labels
"""
EDITS = """
from pathlib import Path
import numpy as np

def editing(labels, outputs):
    spec = Path("spec.yaml")
    spec.write_text(spec.read_text().replace("    failing: '>= 90 %'\\n", ""))
    return np.ones(len(labels), bool)

def failing(labels, outputs):
    return np.zeros(len(labels), bool)
"""
SPEC = """\
deploycheck: 1
name: edited
model: {build: "model:build", input: {x: {shape: [4], dtype: float32}}}
data: {load: "model:load"}
train:
  optimizer: {sgd: {learning_rate: 1e-3}}
  epochs: 1
  batch_size: 64
  expect:
    failing: '>= 90 %'
    editing: '>= 90 %'
metrics:
  failing: {use: "edits:failing", kind: proportion, direction: higher}
  editing: {use: "edits:editing", kind: proportion, direction: higher}
promote: {registry: "sqlite:registry.db", model: digits, to: staging}
"""


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_a_failing_check_that_is_deleted_while_it_runs_still_counts(project: Project, workers: tuple[str, ...]) -> None:
    project.pytester.makepyfile(model=MODEL, edits=EDITS)
    path = project.write(SPEC)
    result = project.run("--deploycheck-promote", *workers, "spec.yaml")
    assert "failing: '>=" not in path.read_text()
    assert result.ret == 1
    assert project.verdicts()["train::failing"] == "fail"
    assert project.spec["decision"] == "withheld"
    assert not project.promoted


def test_a_spec_of_which_processes_read_different_texts_is_withheld(project: Project) -> None:
    project.pytester.makepyfile(model=MODEL, edits=EDITS)
    project.pytester.makeconftest(
        """
        import pytest
        from pathlib import Path

        @pytest.hookimpl(tryfirst=True)
        def pytest_collection_finish(session):
            if hasattr(session.config, "workerinput"):
                spec = Path("spec.yaml")
                spec.write_text(spec.read_text().replace(">= 90 %", ">= 80 %"))
        """
    )
    project.write(SPEC.replace("    failing: '>= 90 %'\n", ""))
    result = project.run("--deploycheck-promote", "-n", "1", "spec.yaml")
    assert set(project.verdicts().values()) == {"pass"}
    assert project.spec["decision"] == "withheld"
    (reason,) = project.spec["reasons"]
    assert reason.startswith("the spec, or a standard that it extends, was edited while it was checked")
    assert result.ret == 1
    assert not project.promoted


def test_a_spec_that_can_not_be_read_any_more_promotes_nothing(project: Project) -> None:
    project.pytester.makepyfile(model=MODEL, edits=EDITS)
    project.pytester.makeconftest(
        """
        import pytest
        from pathlib import Path

        @pytest.hookimpl(tryfirst=True)
        def pytest_collection_finish(session):
            if hasattr(session.config, "workerinput"):
                Path("spec.yaml").write_text("deploycheck: 2")
        """
    )
    project.write(SPEC.replace("    failing: '>= 90 %'\n", ""))
    result = project.run("--deploycheck-promote", "-n", "1", "spec.yaml")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["error: spec.yaml was edited while it was checked, and can't be read any more: *"])
    assert not project.promoted
