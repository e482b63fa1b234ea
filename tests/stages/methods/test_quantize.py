from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import pytest
from pydantic import ValidationError

from deploycheck.language.errors import SpecErrors
from deploycheck.stages.examples import Examples
from deploycheck.stages.methods import Builder, Method, is_given_trainer
from deploycheck.stages.methods.quantize import QUANTIZE, QuantizeOptions
from deploycheck.stages.model import Model
from tests.planning import HEAD, spec
from tests.stages.networks import IMAGE, plain
from tests.stages.trainers import RECIPE, trainer_for


def no_builder(path: str, arguments: Any) -> Model:
    raise AssertionError(f"another model was built: {path}")


def lowered(model: Model) -> str:
    inputs = {name: jax.numpy.zeros(part.shape, part.dtype) for name, part in IMAGE.items()}
    return jax.jit(model.apply).lower(model.params, model.state, inputs).as_text()


def test_it_is_a_method_that_does_not_train() -> None:
    assert isinstance(QUANTIZE, Method)
    assert not QUANTIZE.trains


@pytest.mark.parametrize(("activations", "in_int8"), [("int8", True), (None, False)])
def test_activations_are_int8_where_the_options_say_so(activations: str | None, in_int8: bool) -> None:
    options = QuantizeOptions.model_validate({"weights": "int8", "activations": activations})
    model = QUANTIZE.compress(plain(0), options, None)
    assert model.weights["params/kernel/qvalue"].dtype == "int8"
    products = [line for line in lowered(model).splitlines() if "dot_general" in line]
    assert ["tensor<2x36xi8>" in line for line in products] == [in_int8, False]


@pytest.mark.parametrize("activations", ["int8", None])
def test_the_structure_is_the_form_of_what_it_makes(activations: str | None) -> None:
    options = QuantizeOptions.model_validate({"weights": "int8", "activations": activations})
    build: Builder = no_builder
    made, form = QUANTIZE.compress(plain(0), options, None), QUANTIZE.structure(plain(1).form, options, build)
    assert form.weights == made.form.weights
    assert lowered(form.with_weights(made.weights)) == lowered(made)


@pytest.mark.parametrize("options", [{}, {"weights": "int3"}, {"weights": "int8", "bits": 8}])
def test_options_that_it_does_not_have_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        QuantizeOptions.model_validate(options)


@pytest.mark.parametrize("mixture", [{}, {"distill": {"alpha": 0.5, "temperature": 2}}])
def test_it_trains_further_where_the_options_say_so(
    mixture: dict[str, Any], examples: Mapping[str, Examples], tmp_path: Path
) -> None:
    lines: list[str] = []
    options = QuantizeOptions.model_validate({"weights": "int4", "finetune": {"epochs": 1, **mixture}})
    assert is_given_trainer(QUANTIZE, options)
    made = QUANTIZE.compress(plain(0), options, trainer_for(examples, tmp_path, RECIPE, lines.append))
    assert lines[-1].startswith("quantize: epoch 1/1")
    assert lines[0].startswith("distill: the teacher answers") is bool(mixture)
    at_once = QUANTIZE.compress(plain(0), QuantizeOptions(weights="int4"), None)
    assert made.form.weights == at_once.form.weights
    assert bool((made.params["kernel/qvalue"] != at_once.params["kernel/qvalue"]).any())
    assert QUANTIZE.describe(plain(0), made) == QUANTIZE.describe(plain(0), at_once)


SMALL_GROUPS = "groups of 32 are multiplied in float, so activations in int8 would only lose accuracy"


@pytest.mark.parametrize(
    ("options", "at", "says"),
    [
        ("weights: int3", "int3", "'int3' is not one of: int8, int4, fp8"),
        ("weights: {int3: [a]}", "int3", "unknown key 'int3' in `compress.variants.small.quantize.weights`"),
        ("weights: {}", "{}", "no type is given to any weight"),
        ("weights: {int8: []}", "[]", "at least 1 item"),
        ("weights: {int8: head}", "head", "expected a list"),
        ("weights: {int8: [a, a]}", "[a, a]", "the pattern 'a' is listed twice"),
        ("weights: {fp8: [a], int8: [b]}, activations: int8", "int8}", "int8 activations can't be multiplied with fp8"),
        ("weights: fp8, activations: int8", "int8", "int8 activations can't be multiplied with fp8 weights"),
        ("weights: int8, activations: int4", "int4", "'int4' is not one of: int8"),
        ("weights: int4, per: {group: 32}, activations: int8", "int8", SMALL_GROUPS),
        ("weights: int8, per: chanel", "chanel", "'chanel' is not one of: tensor, channel, {group: N}"),
        ("weights: int8, per: {grup: 32}", "grup", "unknown key 'grup' in `compress.variants.small.quantize.per`"),
        ("weights: int8, per: {group: 1}", "1}", "greater than or equal to 2"),
        ("weights: int8, per: {group: half}", "half", "expected a whole number"),
        ("weights: int8, per: 32", "32", "expected a mapping"),
        ("weights: int8, calibrate: {}", "{}", "only activations have ranges to calibrate"),
        ("weights: int8, activations: int8, calibrate: {method: max}", "max", "'max' is not one of: absmax"),
        ("weights: int8, activations: int8, calibrate: {examples: 0}", "0}", "greater than or equal to 1"),
        ("weights: fp8, gptq: {}", "{}", "GPTQ rounds to integers"),
        ("weights: int4, gptq: {examples: 0}", "0}", "greater than or equal to 1"),
        ("weights: int4, gptq: {}, finetune: {epochs: 1}", "{}", "starts from rounding to nearest"),
        ("weights: int8, finetune: {epochs: 0}", "0}", "greater than or equal to 1"),
        ("weights: int8, finetune: {}", "finetune", "has no 'epochs'"),
        ("weights: int8, finetune: {epochs: 1, distill: {}}", "distill", "has no 'alpha'"),
        ("weights: int8, finetune: {epochs: 1, distill: {alpha: 2}}", "2}", "less than or equal to 1"),
        ("weights: int8, keep: head", "head", "expected a list"),
        ("weights: int8, keep: [a, a]", "[a, a]", "the pattern 'a' is listed twice"),
    ],
)
def test_a_mistake_in_its_options_is_placed(options: str, at: str, says: str, tmp_path: Path) -> None:
    line = f"  variants: {{small: {{quantize: {{{options}}}}}}}"
    with pytest.raises(SpecErrors) as refused:
        spec(f"{HEAD}compress:\n{line}\n", tmp_path)
    (error,) = refused.value.errors
    assert says in error.what
    assert error.place.text == line
    assert line[error.place.column - 1 :].startswith(at)


@pytest.mark.parametrize("weights", ["int4", {"int8": ["head"], "int4": ["*"]}], ids=str)
@pytest.mark.parametrize("per", ["tensor", "channel", {"group": 64}], ids=str)
def test_its_options_are_read_again_from_what_they_are_written_as(per: Any, weights: Any) -> None:
    options = QuantizeOptions.model_validate({"weights": weights, "per": per, "keep": ["head/*"]})
    assert QuantizeOptions.model_validate(options.model_dump(mode="json", exclude_none=True)) == options
