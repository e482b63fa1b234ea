"""Options, and what a model gives, for the tests of quantisation."""

from __future__ import annotations

from typing import Any

import jax

from deploycheck.stages.methods.quantize import QuantizeOptions
from deploycheck.stages.model import Model
from deploycheck.stages.network import Inputs, Outputs


def options(weights: str = "int8", **others: Any) -> QuantizeOptions:
    """Return the options of ``quantize``, as a spec has them; any share is enough."""
    return QuantizeOptions.model_validate({"weights": weights, "at_least": "0 %", **others})


def int8(*, activations: bool, at_least: float = 0.0) -> QuantizeOptions:
    """Return the options of int8 weights."""
    return options(activations="int8" if activations else None, at_least=f"{at_least:%}")


def run(model: Model, inputs: Inputs) -> Outputs:
    """Return the model's outputs."""
    outputs: Outputs = jax.jit(model.apply)(model.params, model.state, inputs)
    return outputs


def products(model: Model, inputs: Inputs) -> list[str]:
    """Return the lines of the lowered program that multiply matrices or convolve."""
    text = jax.jit(model.apply).lower(model.params, model.state, inputs).as_text()
    return [line for line in text.splitlines() if "dot_general" in line or "stablehlo.convolution" in line]
