"""Training a model while its numbers are rounded as they will be served.

What is trained are the float weights. In each step the program gets them rounded, and activations too where these are
quantised; gradients go through the rounding as if it weren't there (the straight-through estimator: Bengio, Léonard
and Courville, Estimating or Propagating Gradients Through Stochastic Neurons, 2013; Jacob et al., 2018). After each
epoch the model is validated with the very arithmetic that is served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
from jax import lax

from deploycheck.stages.distillation import Lesson
from deploycheck.stages.methods.quantize import QuantizeOptions
from deploycheck.stages.model import Model, PyTree, flatten
from deploycheck.stages.network import Inputs, Outputs
from deploycheck.stages.pruning import hold_zeros
from deploycheck.stages.quantization import find_quantized, gather, quantize_weights, rounded
from deploycheck.stages.quantization.arithmetic import QuantizedWeight
from deploycheck.stages.quantization.aware import AwareArithmetic, AwareWeight, as_it_is, round_as_served
from deploycheck.stages.quantization.scales import symmetric
from deploycheck.stages.quantized_share import INPUT
from deploycheck.stages.recipe import Recipe
from deploycheck.stages.tracing import evaluate
from deploycheck.stages.trainer import Trainer

Store = Callable[[PyTree], Mapping[str, Any]]
"""``store(params)`` returns a model's params as they are stored: flat, and quantised."""


def train_quantized(
    model: Model,
    options: QuantizeOptions,
    trainer: Trainer,
    recipe: Recipe,
    lesson: Lesson | None = None,
    *,
    name: str = "quantize",
) -> Model:
    """Return the model, trained from its own weights while its numbers are rounded, and quantised.

    Without a lesson it learns the labels. Ranges of activations are calibrated before the training, and stay. The
    zeros of a pruned model stay zero. Raises ``DeploycheckError`` where ``quantize_weights`` does.
    """
    start = quantize_weights(model, options, trainer.examples["train"])
    ranges = {part: array for part, array in start.params.items() if part.endswith(INPUT)}
    stored = storing(model, options, ranges)
    trained = trainer.fit(
        aware(model, start, stored, activations=options.activations == "int8"),
        recipe,
        loss=lesson.loss if lesson else None,
        targets=lesson.targets if lesson else None,
        constraint=hold_zeros(model),
        name=name,
    )
    return replace(start, params=stored(trained.params), state=trained.state)


def storing(model: Model, options: QuantizeOptions, ranges: Mapping[str, jax.Array]) -> Store:
    """Return what quantises params of the model; ``ranges`` are the scales of activations, by their own names.

    Its result doesn't depend on the program that it is a part of, but for weights that are half-way between two codes
    by chance: a model is stored as it was validated.
    """
    uses = find_quantized(model, options)
    return lambda params: symmetric(rounded(flatten(params)[0], uses, options)) | dict(ranges)


def aware(model: Model, quantized: Model, stored: Store, *, activations: bool) -> Model:
    """Return a model with the float params of ``model`` that answers as ``quantized``, and can be trained."""
    rules = AwareArithmetic(round_as_served if activations else as_it_is)
    leaves, restore = flatten(model.form.params)

    def apply(params: PyTree, state: PyTree, inputs: Inputs) -> Outputs:
        return quantized.apply(stored(params), state, inputs)

    def train(params: PyTree, state: PyTree, inputs: Inputs, key: jax.Array) -> tuple[Outputs, PyTree]:
        given = flatten(params)[0]
        weights = gather(stored(lax.stop_gradient(params)), given)
        seen = {
            name: AwareWeight.of(array, weights[name]) if isinstance(weights[name], QuantizedWeight) else array
            for name, array in given.items()
        }

        def run(weights: Mapping[str, Any], inputs: Inputs) -> tuple[Outputs, PyTree]:
            return model.train(restore(weights), state, inputs, key)

        return evaluate(run, leaves, seen, inputs, rules)

    return replace(model, apply=apply, train=train)
