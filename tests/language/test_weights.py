"""A model with weights need not be trained; one without must be."""

from __future__ import annotations

import pytest

from deploycheck.language import SpecErrors, load
from deploycheck.plan import make_plans
from tests.language.writing import MINIMAL, Project
from tests.planning import built_in

WEIGHTS = "  weights: {load: npz, path: w.npz}\ndata:\n"
UNTRAINED = MINIMAL.replace("data:\n", WEIGHTS, 1).replace(
    "  optimizer: {adam: {learning_rate: 1e-3}}\n  epochs: 10\n  batch_size: 128\n", ""
)


@pytest.fixture(autouse=True)
def weights(project: Project) -> None:
    project.write("", "w.npz")


def test_a_model_with_weights_is_not_trained_unless_the_spec_says_how(project: Project) -> None:
    assert not project.one(UNTRAINED).train.trains
    assert project.one(MINIMAL.replace("data:\n", WEIGHTS, 1)).train.trains
    without_section = (
        UNTRAINED[: UNTRAINED.index("train:")] + "compress: {variants: {int8: {quantize: {weights: int8}}}}\n"
    )
    assert not project.one(without_section).train.trains


def test_its_splits_for_training_may_be_empty(project: Project) -> None:
    split = "  split: {train: 0, validation: 0, test: 1}\ntrain:\n"
    assert project.one(UNTRAINED.replace("train:\n", split, 1)).data.split.test == 1
    errors = project.errors(MINIMAL.replace("train:\n", split, 1)).errors
    assert [(error.place.line, error.what) for error in errors] == [
        (9, "a training needs examples for train"),
        (9, "a training needs examples for validation"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "what", "hint"),
    [
        (
            "train:\n",
            "train:\n  seeds: [0, 1]\n",
            11,
            "nothing is trained, so `seeds` has no effect",
            "add `optimizer`",
        ),
        ("train:\n", "train:\n  epochs: 3\n", 10, "`train` has no 'optimizer'", "add `optimizer: ...`"),
        ("load: npz", "load: npy", 7, "unknown format of weights 'npy'", "did you mean 'npz'?"),
        ("load: npz", "load: os:system", 7, "os is part of Python's standard library", ""),
        ("path: w.npz", "path: v.npz", 7, "there is no file v.npz", "paths are from"),
        ("path: w.npz", "path: ../w.npz", 7, "../w.npz is outside of", "move the file into the project"),
        ("path: w.npz", "path: w.npz, names: specs.models:nothing", 7, "specs.models has no nothing", ""),
        ("path: w.npz", "path: w.npz, sha256: abc", 7, "'abc' is not 64 small hexadecimal digits", "sha256sum"),
        ("path: w.npz", "path: w.npz, names: {}", 7, "names", ""),
    ],
)
def test_what_is_wrong_is_said_at_its_place(
    project: Project, old: str, new: str, line: int, what: str, hint: str
) -> None:
    errors = project.errors(UNTRAINED.replace(old, new, 1)).errors
    assert what in errors[0].what
    assert errors[0].place.line == line
    assert hint in errors[0].hint


def test_a_model_without_weights_is_trained(project: Project) -> None:
    errors = project.errors(UNTRAINED.replace(WEIGHTS, "data:\n")).errors
    assert errors[0].what == "`train` has no 'optimizer'"
    no_train = MINIMAL[: MINIMAL.index("train:")]
    assert project.errors(no_train).errors[0].what == "`model` needs a section `train`"


@pytest.mark.parametrize("metric", ["learned: '>= 50 % over majority'", "accuracy.over_seeds: '>= 50 %'"])
def test_what_is_measured_of_a_training_is_refused_without_one(project: Project, metric: str) -> None:
    extensions = built_in(project.root)
    path = project.write(UNTRAINED.replace('accuracy: ">= 97 %"', metric))
    (spec,) = load(path, project.root, extensions.vocabulary)
    with pytest.raises(SpecErrors, match="is measured of a training, and this spec has none"):
        make_plans([spec], "spec.yaml", extensions)
