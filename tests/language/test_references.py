"""What a spec names exists, and takes the arguments that the spec gives it."""

from __future__ import annotations

import pytest

from tests.language.writing import MINIMAL, Project, with_module


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
