"""What can't be done with a program that can only be called is said where it is written, before anything is loaded."""

from __future__ import annotations

import json

import pytest

from deploycheck.language import SpecErrors, load
from deploycheck.language.errors import SpecError
from tests.language.test_artifact import SPEC, TRAINED
from tests.language.writing import Project
from tests.planning import built_in

DISTIL = "distill: {alpha: 0.5, model: {build: specs.models:anything}, train: {epochs: 1}}"
TRAIN = TRAINED.replace("net.onnx", "handed")


def write(project: Project, **signature: object) -> None:
    project.write(json.dumps({"model": "m", **signature}), "handed/signature.json")


def errors_of(project: Project, text: str) -> list[SpecError]:
    path = project.write(text)
    try:
        load(path, project.root, built_in(project.root).vocabulary)
    except SpecErrors as refused:
        return list(refused.errors)
    return []


def with_variants(*variants: str, text: str = SPEC) -> str:
    section = "compress:\n  variants:\n" + "".join(f"    {variant}\n" for variant in variants)
    return text.replace("net.onnx", "handed").replace("train:", f"{section}train:")


@pytest.mark.parametrize(
    ("variants", "refused"),
    [
        (["int8: {quantize: {weights: int8}}"], {"`quantize` looks inside of its model, and one exported for xla can"}),
        (["cut: {method: {prune: {channels: 50 %}}}"], {"`prune` looks inside of its model"}),
        (["coded: {dead_zone: {range: 128}}", "more: {from: coded, quantize: {weights: int8}}"], {"`quantize` looks"}),
        (["coded: {dead_zone: {range: 128}}", "other: {from: coded, runtime: onnxruntime}"], {"can't be exported for"}),
        (
            ["small: {search: {within: {accuracy_drop: <= 1 pp}, over: [quantize: {weights: int8}]}}"],
            {"`quantize`"},
        ),
        (["coded: {dead_zone: {range: 128}}", "own: {method: {'specs.models:anything': {}}}"], set()),
        (["coded: {dead_zone: {range: 128}, runtime: xla}"], set()),
    ],
)
def test_a_method_that_looks_inside_and_another_runtime_are_refused(
    project: Project, variants: list[str], refused: set[str]
) -> None:
    write(project, runtime="xla")
    text = with_variants(*variants)
    errors = errors_of(project, text)
    assert len(errors) == len(refused), errors
    for error, says in zip(errors, refused, strict=True):
        assert says in error.what
        assert "as an ONNX file" in error.hint
        assert error.place.line == text.splitlines().index(f"    {variants[-1]}") + 1


def test_what_a_student_is_made_into_is_open_to_all(project: Project) -> None:
    write(project, runtime="xla")
    chain = with_variants(
        f"s: {{{DISTIL}}}", "int8: {from: s, quantize: {weights: int8}}", "o: {from: s, runtime: onnxruntime}"
    )
    assert not errors_of(project, chain)
    hinted = DISTIL.replace("alpha: 0.5", "alpha: 0.5, hints: {parts: {a: b}, weight: 1}")
    (error,) = errors_of(project, with_variants(f"s: {{{hinted}}}"))
    assert "`distill` looks inside of its model" in error.what


def test_a_training_and_another_runtime_for_all_are_refused(project: Project) -> None:
    write(project)  # of the first version, which names no runtime: there was only xla
    (error,) = errors_of(project, TRAIN)
    assert error.what == "a program that was exported for xla can't be trained"
    assert error.place.text.strip().startswith("optimizer:")
    served = SPEC.replace("net.onnx", "handed") + "serve: {runtime: onnxruntime}\n"
    (error,) = errors_of(project, served)
    assert error.what == "a program that was exported for xla can't be exported for onnxruntime"
    assert error.place.text.startswith("serve:")


def test_what_was_exported_for_onnxruntime_is_open_to_all(project: Project) -> None:
    write(project, runtime="onnxruntime")
    assert not errors_of(project, with_variants("int8: {quantize: {weights: int8}}", text=TRAINED))


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("handed/other.txt", "", "handed is a folder, and no model that deploycheck exported is in it"),
        ("handed/signature.json", "[]", "handed is a folder, and no model that deploycheck exported is in it"),
        ("handed/signature.json", '{"runtime": 1}', "handed is a folder, and no model that deploycheck exported is"),
        ("handed/signature.json", '{"runtime": "trt"}', "it was exported for 'trt', whose exports can't be read back"),
    ],
)
def test_another_folder_is_refused(project: Project, name: str, content: str, what: str) -> None:
    project.write(content, name)
    (error,) = errors_of(project, SPEC.replace("net.onnx", "handed"))
    assert what in error.what
    assert error.place.text.strip() == "artifact: handed"
