from __future__ import annotations

from typing import Any

import jax
import pytest
from pydantic import ValidationError

from deploycheck.stages.methods import Builder, Method
from deploycheck.stages.methods.quantize import QUANTIZE, QuantizeOptions
from deploycheck.stages.model import Model
from tests.stages.networks import IMAGE, plain


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


@pytest.mark.parametrize("options", [{}, {"weights": "int4"}, {"weights": "int8", "bits": 8}])
def test_options_that_it_does_not_have_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        QuantizeOptions.model_validate(options)
