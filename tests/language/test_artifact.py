"""A model as a file: it has no code, needs no training, and takes the place of both."""

from __future__ import annotations

import jsonschema
import pytest

from deploycheck.language import SpecErrors, json_schema, load
from deploycheck.language.source import parse
from deploycheck.plan import make_plans
from tests.language.writing import MINIMAL, Project
from tests.planning import built_in

BUILD = """\
  build: specs.models:conv_classifier
  with: {features: [32], classes: 10}
"""
TRAINING = "  optimizer: {adam: {learning_rate: 1e-3}}\n  epochs: 10\n  batch_size: 128\n"
TRAINED = MINIMAL.replace(BUILD, "  artifact: net.onnx\n")
SPEC = TRAINED.replace(TRAINING, "")


@pytest.fixture(autouse=True)
def file(project: Project) -> None:
    project.write("", "net.onnx")


@pytest.mark.parametrize(("text", "steps"), [(SPEC, {"artifact"}), (TRAINED, {"artifact", "training"})])
def test_it_is_what_is_measured_or_what_a_training_starts_from(project: Project, text: str, steps: set[str]) -> None:
    spec = project.one(text)
    assert (spec.model.artifact, spec.model.build, spec.train.trains) == ("net.onnx", None, "training" in steps)
    (plan,) = make_plans([spec], "spec.yaml", built_in(project.root))
    assert {ref.kind for ref in plan.steps} & {"artifact", "weights", "training"} == steps


def test_it_needs_no_section_train(project: Project) -> None:
    text = SPEC[: SPEC.index("train:")] + "compress: {variants: {int8: {quantize: {weights: int8}}}}\n"
    assert not project.one(text).train.trains


DIGEST = "f" * 64


@pytest.mark.parametrize(
    ("old", "new", "line", "what", "hint"),
    [
        ("net.onnx", "none.onnx", 4, "there is no file none.onnx", "paths are from"),
        ("net.onnx", "../net.onnx", 4, "../net.onnx is outside of", "move the file"),
        ("  artifact: net.onnx\n", "", 3, "`model` has no 'build'", "add `build: ...`"),
        ("  input", BUILD + "  input", 5, "`artifact` is the whole model, so `build` has no effect", "leave one out"),
        ("  input", "  with: {a: 1}\n  input", 5, "`artifact` is the whole model, so `with` has no effect", "leave"),
        ("  input", "  weights: {load: npz, path: net.onnx}\n  input", 5, "so `weights` has no effect", "leave"),
        ("  input", "  sha256: abc\n  input", 5, "'abc' is not 64 small hexadecimal digits", "sha256sum"),
        ("  artifact: net.onnx\n", f"{BUILD}  sha256: {DIGEST}\n", 6, "`sha256` is the digest of an", "that of"),
    ],
)
def test_what_is_wrong_is_said_at_its_place(
    project: Project, old: str, new: str, line: int, what: str, hint: str
) -> None:
    errors = project.errors(SPEC.replace(old, new, 1)).errors
    found = [error for error in errors if what in error.what]
    assert found, [error.what for error in errors]
    assert found[0].place.line == line
    assert hint in found[0].hint


def test_a_student_needs_code(project: Project) -> None:
    student = "compress: {variants: {small: {distill: {model: {with: {a: 1}}, alpha: 0.5}}}}\n"
    path = project.write(TRAINED.replace("train:", student + "train:"))
    with pytest.raises(SpecErrors) as refused:
        load(path, project.root, built_in(project.root).vocabulary)
    (error,) = refused.value.errors
    assert (error.place.line, error.hint) == (8, "add `build: package.module:name`")
    assert error.what == "`model` is a file here, and no other model can be built from it"


@pytest.mark.parametrize(
    ("text", "valid"), [(SPEC, True), (MINIMAL, True), (SPEC.replace("  input", BUILD + "  input"), False)]
)
def test_the_schema_wants_code_or_a_file(project: Project, text: str, valid: bool) -> None:
    schema = json_schema(built_in(project.root).vocabulary)
    data = parse(text, project.root / "spec.yaml", "spec").data
    assert jsonschema.Draft202012Validator(schema).is_valid(data) == valid
