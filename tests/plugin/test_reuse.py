"""A result is used again only if all that went into it is unchanged, wherever it is; and the summary says why not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from deploycheck.stages import examples
from deploycheck.store import write_manifest
from tests.plugin.conftest import SPEC, Project

LOADED_BY_NAME = """
import importlib

def read():
    return importlib.import_module("parts." + "digits").digits()
"""
OPENED_BY_LOADER = """
import numpy as np
from digits_data import digits

def read():
    images, labels = digits()
    return images * np.load("factor.npy"), labels
"""
OPENED_BY_STEP = """
import numpy as np
from deploycheck.stages.preprocess import Preprocessing

def fit(inputs):
    return {"factor": np.load("factor.npy")}

def apply(fitted, inputs):
    return {name: array * fitted["factor"] for name, array in inputs.items()}

step = Preprocessing("factor", fit, apply)
"""
OPENED_BY_MODEL = """
import numpy as np
from net import build_function

def build(features, key):
    params, apply = build_function(features, key)
    factor = np.load("factor.npy")
    return params, lambda params, image: apply(params, image * factor)
"""


@dataclass(frozen=True)
class Gate:
    """A project with a cache of its own, whose gate runs up to one check."""

    project: Project
    cache: Path
    upto: str

    def because(self) -> dict[str, str]:
        """Run the gate; return the steps that were done, each with why it was done again."""
        result = self.project.run(f"spec.yaml::{self.upto}", cache=self.cache)
        assert result.ret == 0
        done = {step["step"]: step["because"] for step in self.project.spec["steps"] if not step["reused"]}
        for step, because in done.items():
            if because:
                result.stdout.fnmatch_lines([f"done again: {step.replace('[', '[[]')} ({because})"])
        return done


@pytest.fixture
def gate(project: Project, empty_cache: Path) -> Callable[..., Gate]:
    def make(spec: str, upto: str = "data::completes", **files: str) -> Gate:
        if files:
            project.pytester.makepyfile(**files)
        project.write(spec)
        return Gate(project, empty_cache, upto)

    return make


def loading(path: str) -> str:
    return SPEC.replace("digits_data:digits", path).replace("epochs: 12", "epochs: 1")


def test_code_that_is_imported_by_name_counts(gate: Callable[..., Gate]) -> None:
    made = gate(loading("by_name:read"), by_name=LOADED_BY_NAME)
    parts = made.project.pytester.mkpydir("parts") / "digits.py"
    parts.write_text("from digits_data import digits\n")
    assert made.because() == {"data": ""}
    assert made.because() == {}
    parts.write_text("from digits_data import digits  # as before\n")
    assert made.because() == {}
    parts.write_text("from digits_data import shuffled as digits\n")
    assert made.because() == {"data": "source parts/digits.py changed"}


@pytest.mark.parametrize("way", ["outside", "linked"])
def test_code_outside_of_the_root_counts(
    gate: Callable[..., Gate], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    elsewhere = tmp_path / "shared"
    elsewhere.mkdir()
    common = elsewhere / "common.py"
    common.write_text("from digits_data import digits\n")
    if way == "outside":
        monkeypatch.syspath_prepend(elsewhere)
        made = gate(loading("common:digits"))
    else:
        made = gate(loading("linked.common:digits"))
        (made.project.pytester.path / "linked").symlink_to(elsewhere)
    assert made.because() == {"data": ""}
    assert made.because() == {}
    common.write_text("from digits_data import shuffled as digits\n")
    assert list(made.because()) == ["data"]
    assert made.because() == {}


@pytest.mark.parametrize(
    ("spec", "upto", "module", "source", "step"),
    [
        (loading("opening:read"), "data::completes", "opening", OPENED_BY_LOADER, "data"),
        (
            loading("digits_data:digits").replace("{scale: {by: 0.0625}}", "{'opening:step': {}}"),
            "data::completes",
            "opening",
            OPENED_BY_STEP,
            "data",
        ),
        (
            loading("digits_data:digits").replace("net:build_nnx", "opening:build"),
            "train::completes",
            "opening",
            OPENED_BY_MODEL,
            "training",
        ),
    ],
    ids=["loader", "step", "model"],
)
def test_a_file_that_the_users_code_opens_counts(
    gate: Callable[..., Gate], spec: str, upto: str, module: str, source: str, step: str
) -> None:
    made = gate(spec, upto, **{module: source})
    file = made.project.pytester.path / "factor.npy"
    np.save(file, np.float32(0.5))
    assert step in made.because()
    assert made.because() == {}
    facts = file.stat()
    np.save(file, np.float32(0.25))
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert made.because()[step] == "file factor.npy changed"
    assert made.because() == {}


STUDENT = """
import jax
from net import build_function

def build(key):
    return build_function(WIDTH, key)
"""


def test_the_code_of_a_student_counts_for_what_is_made_of_it_and_not_for_its_teacher(
    gate: Callable[..., Gate],
) -> None:
    chain = "student: {distill: {model: {build: 'student:build'}, alpha: 0.7, temperature: 4, train: {epochs: 2}}}"
    small = SPEC.replace("int8: {quantize", f"{chain}\n    small: {{from: student, quantize")
    made = gate(small, "compress[small]::completes", student=STUDENT.replace("WIDTH", "8"))
    assert {"training", "variant[student]", "variant[small]", "model[small]"} <= made.because().keys()
    made.project.pytester.makepyfile(student=STUDENT.replace("WIDTH", "4"))
    again = made.because()
    assert again["variant[student]"] == "source student changed"
    assert again.keys() == {"variant[student]", "variant[small]", "model[small]", "outputs[small]"}


def test_the_setting_that_changed_is_named(gate: Callable[..., Gate]) -> None:
    made = gate(loading("digits_data:digits"))
    assert made.because() == {"data": ""}
    made.project.write(loading("digits_data:digits").replace("test: 0.4", "test: 0.3").replace("0.1,", "0.2,"))
    assert made.because() == {"data": "setting split.test changed; setting split.validation changed"}


FLAGGED = """
import jax

jax.config.update("jax_enable_x64", True)

from net import build_function


def build(features, key):
    return build_function(features, key)
"""


def test_what_one_specs_module_sets_reaches_no_other_spec(project: Project, empty_cache: Path, tmp_path: Path) -> None:
    """A spec gives the same bytes alone, and after one whose module turns on 64 bits."""
    project.pytester.makepyfile(flagged=FLAGGED)
    plain = loading("digits_data:digits").replace("net:build_nnx", "net:build_function").partition("compress:")[0]
    project.write(plain, "b.yaml")
    project.write(plain.replace("net:build_function", "flagged:build"), "a.yaml")
    digests = {}
    for name, specs in (("alone", ["b.yaml"]), ("after", ["a.yaml", "b.yaml"])):
        cache = shutil.copytree(empty_cache, tmp_path / name)
        project.run(*specs, "-k", "train and completes", cache=cache)
        found = {spec["id"]: spec["steps"] for spec in project.evidence["specs"]}
        digests[name] = {step["step"]: step["digest"] for step in found["b.yaml"]}
    assert digests["alone"] == digests["after"]
    assert "training" in digests["alone"]


def test_answers_put_into_a_shared_cache_promote_nothing(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from deploycheck.cli import main

    head, _, promote = SPEC.partition("compress:")
    hard = head.replace(">= 90 %", ">= 99 %") + "promote:" + promote.partition("promote:")[2]
    project.write(hard.replace("epochs: 12", "epochs: 1").replace('    learned: ">= 80 % over majority"\n', ""))
    assert project.run("spec.yaml", cache=tmp_path).ret == 1
    steps = {
        step["step"]: tmp_path / "store" / step["step"].partition("[")[0] / step["key"]
        for step in project.spec["steps"]
    }
    labels = examples.read(steps["data"] / "test.safetensors").labels
    forged = steps["outputs[trained]"]
    save_file({"logits": np.eye(10, dtype=np.float32)[labels]}, forged / "outputs.safetensors")
    before = json.loads((forged / "manifest.json").read_text())
    (forged / "manifest.json").unlink()
    write_manifest(forged, before["kind"], before["key"], before["meta"])
    assert project.run("spec.yaml", cache=tmp_path).ret == 0
    assert project.spec["from_store"] == ["data", "outputs[trained]"]
    monkeypatch.chdir(project.pytester.path)
    assert main(["promote", "evidence.json", "--cache", str(tmp_path)]) == 1
    assert "data, outputs[trained]: taken from the store" in capsys.readouterr().err
    assert project.run("--deploycheck-promote", "spec.yaml", cache=tmp_path).ret == 1
    assert project.verdicts()["train::accuracy"] == "fail"
    assert not project.promoted
