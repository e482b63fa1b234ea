from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from deploycheck.errors import DeploycheckError
from deploycheck.stages.examples import Examples
from deploycheck.stages.methods import Method
from deploycheck.stages.methods.distill import DISTILL, DistillOptions
from deploycheck.stages.model import Model, build_model
from deploycheck.stages.trainer import Trainer
from tests.stages.networks import IMAGE, LOGITS, build, from_function, plain_net
from tests.stages.trainers import RECIPE as LONGER
from tests.stages.trainers import trainer_for as trainer_for_plain

RECIPE = replace(LONGER, epochs=1)
SMALL = {"model": {"with": {"width": 2}}, "alpha": 0.5, "temperature": 2}


def build_plain(path: str | None, arguments: Mapping[str, Any]) -> Model:
    assert path is None
    return build_model(plain_net, arguments, IMAGE, seed=1, outputs=LOGITS)


def trainer_for(examples: Mapping[str, Examples], scratch: Path, lines: list[str]) -> Trainer:
    return replace(trainer_for_plain(examples, scratch, RECIPE, lines.append), build=build_plain)


def test_it_is_a_method_that_trains() -> None:
    assert isinstance(DISTILL, Method)
    assert DISTILL.trains


def test_the_structure_is_the_form_of_what_it_makes_and_not_of_the_teacher(
    examples: Mapping[str, Examples], tmp_path: Path
) -> None:
    options, teacher = DistillOptions.model_validate(SMALL), build("function", 0)
    made = DISTILL.compress(teacher, options, trainer_for(examples, tmp_path, []))
    form = DISTILL.structure(teacher.form, options, build_plain)
    assert form.weights == made.form.weights
    assert {name: array.shape for name, array in made.params.items()} == {
        "kernel": (36, 2),
        "head": (2, 3),
        "bias": (3,),
    }
    again, inputs = form.with_weights(made.weights), examples["validation"].inputs
    outputs = [model.apply(model.params, model.state, inputs)["logits"] for model in (made, again)]
    np.testing.assert_array_equal(*outputs)


def test_a_student_learns_from_hints(examples: Mapping[str, Examples], tmp_path: Path) -> None:
    hints = {"parts": {"kernel": "kernel"}, "weight": 100}
    teacher, options = build("function", 0), DistillOptions.model_validate({**SMALL, "hints": hints})
    made, without = (
        DISTILL.compress(teacher, each, trainer_for(examples, tmp_path / name, []))
        for name, each in (("hints", options), ("none", DistillOptions.model_validate(SMALL)))
    )
    assert made.form.weights == DISTILL.structure(teacher.form, options, build_plain).weights
    assert not np.allclose(made.params["kernel"], without.params["kernel"])


@pytest.mark.parametrize(("train", "epochs"), [({}, 1), ({"train": {"epochs": 3}}, 3)])
def test_it_trains_as_the_spec_does_or_as_its_own_section_says(
    train: dict[str, Any], epochs: int, examples: Mapping[str, Examples], tmp_path: Path
) -> None:
    lines: list[str] = []
    options = DistillOptions.model_validate({**SMALL, **train})
    DISTILL.compress(build("function", 0), options, trainer_for(examples, tmp_path, lines))
    assert lines[-1].startswith(f"distill: epoch {epochs}/{epochs}")


def test_a_student_is_trained_while_it_is_quantised(examples: Mapping[str, Examples], tmp_path: Path) -> None:
    options, lines = DistillOptions.model_validate({**SMALL, "quantize": {"weights": "int4"}}), list[str]()
    teacher = build("function", 0)
    made = DISTILL.compress(teacher, options, trainer_for(examples, tmp_path, lines))
    assert lines[-1].startswith("distill: epoch 1/1")
    assert {name: str(array.dtype) for name, array in made.params.items() if name.endswith("qvalue")} == {
        "kernel/qvalue": "int4",
        "head/qvalue": "int4",
    }
    assert DISTILL.structure(teacher.form, options, build_plain).weights == made.form.weights


def test_a_quantised_student_of_other_classes_is_refused(examples: Mapping[str, Examples], tmp_path: Path) -> None:
    options = DistillOptions.model_validate({**SMALL, "quantize": {"weights": "int4"}})
    other = from_function({"w": np.zeros((36, 4))}, lambda params, x: x.reshape(-1, 36) @ params["w"], (6, 6, 1))
    trainer = replace(trainer_for(examples, tmp_path, []), build=lambda path, arguments: other)
    with pytest.raises(DeploycheckError, match="the student gives"):
        DISTILL.compress(build("function", 0), options, trainer)


def test_a_spec_that_trains_nothing_has_no_recipe_for_a_student(
    examples: Mapping[str, Examples], tmp_path: Path
) -> None:
    trainer = replace(trainer_for(examples, tmp_path, []), recipe=None)
    with pytest.raises(DeploycheckError, match="distill: the spec's `train` section has no training to go by"):
        DISTILL.compress(build("function", 0), DistillOptions.model_validate(SMALL), trainer)


@pytest.mark.parametrize(
    ("changed", "at"),
    [
        ({"temperature": 0}, ("temperature",)),
        ({"temperature": -1}, ("temperature",)),
        ({"alpha": 1.01}, ("alpha",)),
        ({"alpha": -0.1}, ("alpha",)),
        ({"alpha": "half"}, ("alpha",)),
        ({"model": {"build": "no path"}}, ("model", "build")),
        ({"model": {"features": [8]}}, ("model", "features")),
        ({"train": {"epochs": 0}}, ("train", "epochs")),
        ({"hints": {"parts": {}, "weight": 1}}, ("hints", "parts")),
        ({"hints": {"parts": {"a": "b"}}}, ("hints", "weight")),
        ({"hints": {"parts": {"a": "b"}, "weight": 0}}, ("hints", "weight")),
        ({"hints": {"parts": {"a": 1}, "weight": 1}}, ("hints", "parts", "a")),
        ({"quantize": {"weights": "int3"}}, ("quantize", "weights")),
        ({"quantize": {"weights": "int8", "calibrate": {}}}, ("quantize", "calibrate")),
        ({"hints": {"parts": {"a": "b"}, "weight": 1}, "quantize": {"weights": "int8"}}, ("hints",)),
    ],
)
def test_options_that_it_does_not_have_are_refused(changed: dict[str, Any], at: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        DistillOptions.model_validate({**SMALL, **changed})
    assert [error["loc"] for error in caught.value.errors()] == [at]


@pytest.mark.parametrize("missing", ["model", "alpha"])
def test_the_student_and_the_weight_of_its_teacher_are_said(missing: str) -> None:
    with pytest.raises(ValidationError, match="Field required"):
        DistillOptions.model_validate({name: value for name, value in SMALL.items() if name != missing})
