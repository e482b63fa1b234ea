"""What a spec names exists, and takes the arguments that the spec gives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploycheck.language import AnotherModel, Section, SpecErrors, Vocabulary, load
from deploycheck.language.names import signature_of
from tests.language.writing import MINIMAL, Project, with_module
from tests.planning import EXTENSIONS


@pytest.mark.parametrize("filled", ["rngs", "seed", "key"])
def test_the_arguments_that_training_fills_in_are_not_missing(project: Project, filled: str) -> None:
    assert project.one(with_module(project, f"def build({filled}): ...\n"))


def test_no_such_argument_is_filled_in_for_data(project: Project) -> None:
    project.write("def load(seed): ...\n", "specs/made.py")
    assert project.refused(MINIMAL.replace("specs.data:digits", "specs.made:load")) == ["8: load needs seed"]


def test_the_arguments_of_a_loader_of_ones_own_are_checked(project: Project) -> None:
    text = MINIMAL.replace("load: specs.data:digits", "load: specs.data:digits\n  with: {size: 3}")
    assert "digits takes no 'size'" in project.refused(text)[0]


def test_a_loader_is_known_or_refused_with_what_was_meant(project: Project) -> None:
    assert project.one(MINIMAL.replace("specs.data:digits", "npz"))
    assert project.refused(MINIMAL.replace("specs.data:digits", "parket")) == [
        "8: unknown loader 'parket' [did you mean 'parquet'?]"
    ]


def read_table(
    path: Path,
    *,
    labels: str,
    rows: int = 3,
    share: float = 0.5,
    header: bool = True,
    columns: Sequence[str] = (),
    other: object = None,
) -> None: ...


def refusals(project: Project, text: str, vocabulary: Vocabulary) -> list[tuple[int, int, str]]:
    file = project.write(text)
    try:
        load(file, project.root, vocabulary)
    except SpecErrors as refused:
        return [(error.place.line, error.place.column, error.what) for error in refused.errors]
    return []


@pytest.mark.parametrize(
    ("given", "at", "what"),
    [
        ("path: t.csv, labels: y, rows: 4, share: 1, header: false, columns: [a], other: {b: 1}", "", ""),
        ("labels: y", "", "table needs path"),
        ("path: t.csv", "", "table needs labels"),
        ("path: t.csv, labels: y, input: x", "input", "table takes no 'input'"),
        ("path: t.csv, labels: y, row: 1", "row:", "table takes no 'row'"),
        ("path: t.csv, labels: 3", "labels", "table takes text as 'labels', not 3"),
        ("path: [t.csv], labels: y", "path", "table takes a path as 'path', not ['t.csv']"),
        ("path: t.csv, labels: y, rows: 1.5", "rows", "table takes a whole number as 'rows', not 1.5"),
        ("path: t.csv, labels: y, rows: true", "rows", "table takes a whole number as 'rows', not True"),
        ("path: t.csv, labels: y, share: half", "share", "table takes a number as 'share', not 'half'"),
        ("path: t.csv, labels: y, header: 1", "header", "table takes true or false as 'header', not 1"),
        ("path: t.csv, labels: y, columns: a", "columns", "table takes a list of texts as 'columns', not 'a'"),
        ("path: t.csv, labels: y, columns: [1]", "columns", "table takes a list of texts as 'columns', not [1]"),
    ],
)
def test_the_arguments_of_an_installed_loader_are_checked_where_they_are_written(
    project: Project, vocabulary: Vocabulary, given: str, at: str, what: str
) -> None:
    project.write("", "t.csv")
    installed = replace(vocabulary, loaders={"table": signature_of(read_table)})
    text = MINIMAL.replace("load: specs.data:digits", f"load: table\n  with: {{{given}}}")
    place = (9, text.splitlines()[8].index(at) + 1) if at else (8, text.splitlines()[7].index("table") + 1)
    assert refusals(project, text, installed) == ([(*place, what)] if what else [])


def fit_shift(inputs: Any, *, by: float) -> None: ...


@pytest.mark.parametrize(
    ("step", "column", "what"),
    [
        ("{shift: {by: 2}}", 0, ""),
        ("{shift: {}}", 17, "shift needs by"),
        ("{shift: {bye: 2, by: 1}}", 25, "shift takes no 'bye'"),
        ("{shift: {inputs: 2, by: 1}}", 25, "shift takes no 'inputs'"),
        ("{shift: {by: far}}", 25, "shift takes a number as 'by', not 'far'"),
    ],
)
def test_the_options_of_an_installed_step_are_checked_where_they_are_written(
    project: Project, vocabulary: Vocabulary, step: str, column: int, what: str
) -> None:
    installed = replace(vocabulary, preprocessing={"shift": signature_of(fit_shift, filled=1)})
    assert refusals(project, with_steps(f"[{step}]"), installed) == ([(9, column, what)] if what else [])


class Learn(Section):
    """A method with two other models, one of which may be left out."""

    student: AnotherModel
    helper: AnotherModel | None = None


STUDENT = """\
def student(features, rngs, depth=1): ...
"""


@pytest.mark.parametrize("form", ["learn: {{{}}}", "method: {{learn: {{{}}}}}"], ids=["by name", "under method"])
@pytest.mark.parametrize(
    ("written", "at", "what"),
    [
        ("student: {build: 'specs.student:student', with: {features: [8]}}", "", ""),
        ("student: {with: {features: [8]}}", "", ""),
        ("student: {}", "", ""),
        ("student: {with: {feature: [8]}}", "feature:", "conv_classifier takes no 'feature'"),
        ("student: {build: 'specs.student:student'}", "'specs", "student needs features"),
        ("student: {build: 'specs.student:studnet'}", "'specs", "specs.student has no studnet"),
        ("student: {build: specs.student}", "specs", "'specs.student' is not an import path"),
        (
            "student: {build: 'specs.student:student', with: {features: [8], width: 3}}",
            "width",
            "student takes no 'width'",
        ),
        ("student: {}, helper: {with: {widths: 3}}", "widths", "conv_classifier takes no 'widths'"),
        ("student: {wiht: {}}", "wiht", "unknown key 'wiht' in `compress.variants.small."),
    ],
)
def test_a_model_that_a_method_is_given_is_checked_as_the_specs_own(
    project: Project, vocabulary: Vocabulary, form: str, written: str, at: str, what: str
) -> None:
    project.write(STUDENT, "specs/student.py")
    line = f"    small: {{{form.format(written)}}}"
    text = f"{MINIMAL}compress:\n  variants:\n{line}\n"
    found = refusals(project, text, replace(vocabulary, methods={"learn": Learn}))
    assert [column for _, column, _ in found] == ([line.index(at) + 1] if at else [])
    assert [message[: len(what)] for _, _, message in found] == ([what] if at else [])


def test_the_models_that_a_method_is_given_are_known_by_their_paths(project: Project, vocabulary: Vocabulary) -> None:
    project.write(STUDENT, "specs/student.py")
    written = "{student: {build: 'specs.student:student', with: {features: [8]}}, helper: {with: {features: [2]}}}"
    variants = f"{{a: {{learn: {written}}}, b: {{method: {{learn: {written}}}}}}}"
    file = project.write(f"{MINIMAL}compress: {{variants: {variants}}}\n")
    (spec,) = load(file, project.root, replace(vocabulary, methods={"learn": Learn}))
    assert spec.compress is not None
    assert {name: it.models for name, it in spec.compress.variants.items()} == dict.fromkeys(
        "ab", ("specs.student:student",)
    )


def test_a_standard_may_leave_a_loaders_arguments_to_its_specs(project: Project, vocabulary: Vocabulary) -> None:
    installed = replace(vocabulary, loaders={"table": signature_of(read_table)})
    assert refusals(project, "deploycheck: 1\nname: edge\ndata: {load: table}\n", installed) == []


@pytest.mark.parametrize("function", [dict, lambda **anything: anything])
def test_a_function_without_a_known_signature_takes_what_it_is_given(
    project: Project, vocabulary: Vocabulary, function: Any
) -> None:
    installed = replace(vocabulary, loaders={"table": signature_of(function)})
    text = MINIMAL.replace("load: specs.data:digits", "load: table\n  with: {any: 1}")
    assert refusals(project, text, installed) == []


@pytest.mark.parametrize(
    ("load", "given", "what"),
    [
        ("npz", "path: t.npz, input: x", "npz takes no 'input'"),
        ("npz", "labels: y", "npz needs path"),
        ("csv", "path: t.npz", "csv needs labels"),
        ("csv", "path: t.npz, labels: y, delimiter: 3", "csv takes text as 'delimiter', not 3"),
        ("parquet", "path: t.npz, labels: y, columns: ward", "parquet takes a list of texts as 'columns', not 'ward'"),
    ],
)
def test_the_arguments_of_the_built_in_loaders_are_known(project: Project, load: str, given: str, what: str) -> None:
    project.write("", "t.npz")
    text = MINIMAL.replace("load: specs.data:digits", f"load: {load}\n  with: {{{given}}}")
    assert [found for _, _, found in refusals(project, text, EXTENSIONS.vocabulary)] == [what]


@pytest.mark.parametrize(
    ("step", "what"),
    [
        ("{scale: {factor: 2}}", "scale takes no 'factor'"),
        ("{scale: {by: '2'}}", "scale takes a number as 'by', not '2'"),
        ("{standardize: {mean: 2}}", "standardize takes no 'mean'"),
        ("{fill_missing: {by: 2}}", "fill_missing takes no 'by'"),
    ],
)
def test_the_options_of_the_built_in_steps_are_known(project: Project, step: str, what: str) -> None:
    assert [found for _, _, found in refusals(project, with_steps(f"[{step}]"), EXTENSIONS.vocabulary)] == [what]


def with_steps(steps: str) -> str:
    return MINIMAL.replace("load: specs.data:digits", f"load: specs.data:digits\n  preprocess: {steps}")


def test_a_step_is_known_or_code_or_refused_at_its_name(project: Project) -> None:
    assert project.one(with_steps("[{scale: {by: 2}}, {'specs.data:shift': {by: 1}}]"))
    (error,) = project.errors(with_steps("[{scale: {by: 2}}, {standardise: {}}]")).errors
    assert (error.place.line, error.place.column) == (9, 35)
    assert error.hint == "did you mean 'standardize'?"
    assert project.refused(with_steps("[{'specs.data:shft': {by: 1}}]")) == [
        "9: specs.data has no shft [did you mean 'shift'?]"
    ]


def with_optimizer(optimizer: str) -> str:
    return MINIMAL.replace("{adam: {learning_rate: 1e-3}}", optimizer)


@pytest.mark.parametrize(
    "optimizer",
    [
        "{adam: {learning_rate: 1e-3, b1: 0.8}}",
        "{adamw: {learning_rate: 1e-3, weight_decay: 0.1}}",
        "{sgd: {learning_rate: 0.1, momentum: 0.9, nesterov: true}}",
        "{lion: {learning_rate: 1e-4}}",
        "{adafactor: {}}",
        "{lamb: {learning_rate: 1e-3}}",
        "{rmsprop: {learning_rate: 1e-3}}",
    ],
)
def test_an_optimizer_goes_by_its_optax_name_and_arguments(project: Project, optimizer: str) -> None:
    pytest.importorskip("optax")
    assert project.one(with_optimizer(optimizer))


@pytest.mark.parametrize(
    ("optimizer", "column", "what", "hint"),
    [
        ("{adm: {learning_rate: 1e-3}}", 15, "optax has no optimiser 'adm'", "did you mean 'adam'?"),
        ("{adma: {learning_rate: 1e-3}}", 15, "optax has no optimiser 'adma'", "did you mean 'adam'?"),
        (
            "{adam: {learning_rte: 1, learning_rate: 1}}",
            22,
            "adam takes no 'learning_rte'",
            "did you mean 'learning_rate'?",
        ),
        ("{adam: {b1: 0.9}}", 15, "adam needs learning_rate", ""),
        ("{_src: {}}", 15, "optax has no optimiser '_src'", None),
    ],
)
def test_a_wrong_optimizer_is_refused_where_it_is_wrong(
    project: Project, optimizer: str, column: int, what: str, hint: str | None
) -> None:
    pytest.importorskip("optax")
    (error,) = project.errors(with_optimizer(optimizer)).errors
    assert (error.place.line, error.place.column, error.what) == (10, column, what)
    assert hint is None or error.hint == hint


def test_a_registry_that_cannot_be_opened_is_refused_where_it_is_named(project: Project) -> None:
    text = MINIMAL + "promote: {model: d, to: staging, registry: 'sqlite:AT'}\n"
    assert project.one(text.replace("AT", "registry.db"))
    (error,) = project.errors(text.replace("AT", "../x.db")).errors
    assert (error.what, error.hint) == ("../x.db is outside", "move it")
    assert error.place.text[error.place.column - 1 :].startswith("'sqlite:")
    assert "no registry can be reached by" in project.refused(text.replace("AT", "x" * 5000))[0]
