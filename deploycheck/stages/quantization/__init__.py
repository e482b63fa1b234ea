"""Quantising a traced model, with qwix's arithmetic.

A model is one pure function of named weights. It is traced, and every matrix product, convolution or lookup with one
of its weights is evaluated on the quantised weight (``arithmetic.py``). Which weights these are, and along which axes
each gets its scales, is found by following them through the trace (``uses.py``). No framework's module system is
involved, so a linen, an nnx and a plain model are quantised by the same code.

Weights are quantised once, symmetrically; activations as they arrive, with one scale per example (and per position,
for a matrix product), so that an output doesn't depend on the other examples in its batch. Jacob et al., Quantization
and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from deploycheck.errors import DeploycheckError
from deploycheck.stages.examples import Examples
from deploycheck.stages.methods.quantize import Gptq, QuantizeOptions
from deploycheck.stages.model import Model, PyTree, flatten
from deploycheck.stages.network import Inputs, Outputs, Weights
from deploycheck.stages.quantization.arithmetic import QuantizedArithmetic, QuantizedWeight, Watch
from deploycheck.stages.quantization.aware import AwareArithmetic, AwareWeight, Meet
from deploycheck.stages.quantization.calibration import calibrate
from deploycheck.stages.quantization.gptq import round_by_gptq
from deploycheck.stages.quantization.precision import finer_options
from deploycheck.stages.quantization.scales import chosen_uses, nearest_like, quantized
from deploycheck.stages.quantization.uses import Use, find_uses
from deploycheck.stages.quantized_share import INPUT, SCALE, VALUE, parts_of, quantized_names, share_of
from deploycheck.stages.tracing import evaluate

__all__ = ["describe_rounding", "describe_share", "quantize_weights", "quantized_form", "refine"]

FlatApply = Callable[[Mapping[str, Any], PyTree, Inputs], Outputs]
"""A model's function of flat params, ``{"conv/kernel": array}``, of its state and of its inputs."""


def quantize_weights(model: Model, options: QuantizeOptions, examples: Examples | None = None) -> Model:
    """Return the model with the weights of its products, convolutions and lookups quantised; its params become flat.

    ``examples`` are those of the training split, for options that calibrate the ranges of activations.
    Raises ``DeploycheckError`` where the options don't fit its weights, or too small a share of them is reached.
    """
    uses = find_quantized(model, options)
    params = rounded(flatten(model.params)[0], uses, options)
    share = share_of(_layout(params))
    if not uses or share.reached < options.at_least * share.total:
        raise DeploycheckError(
            f"only {share.sentence('would be')}",
            hint="a weight becomes quantised where it goes into a matrix product, a convolution or a lookup as it is, "
            "or transposed, cast, reshaped, cut or joined before; not one that is first computed with. To accept "
            "less, write `quantize: {at_least: ...}`",
        )
    quantized_model = replace(_with_quantized_products(model, options), params=params)
    if options.gptq is None and options.calibrate is None:
        return quantized_model
    if examples is None:
        raise TypeError("GPTQ and a calibration are given examples")
    if options.gptq is not None:
        params |= _codes_by_gptq(model, params, uses, examples, options.gptq)
        quantized_model = replace(quantized_model, params=params)
    if options.calibrate is None:
        return quantized_model

    def run(places: Mapping[str, Any], watch: Watch, inputs: Inputs) -> Outputs:
        rules = QuantizedArithmetic(activations=False, watch=watch)
        numbered = {**params, **{name + INPUT: array for name, array in places.items()}}
        return _evaluated(model, rules)(numbered, model.state, inputs)

    scales = calibrate(uses, examples, options.calibrate, run)
    found = {name + INPUT: jnp.asarray(array) for name, array in scales.items()}
    return replace(quantized_model, params=params | found)


def _codes_by_gptq(
    model: Model, params: Mapping[str, Any], uses: Mapping[str, Use], examples: Examples, how: Gptq
) -> dict[str, jax.Array]:
    leaves = flatten(model.params)[0]
    shapes, apply = _flat(model)

    def run(numbers: Mapping[str, Any], meet: Meet, inputs: Inputs) -> Outputs:
        numbered = {**params, **{name + INPUT: array for name, array in numbers.items()}}
        seen = {
            name: AwareWeight(leaves[name], weight) if isinstance(weight, QuantizedWeight) else weight
            for name, weight in gather(numbered, shapes).items()
        }
        rules = AwareArithmetic(meet)
        return evaluate(lambda weights, given: apply(weights, model.state, given), shapes, seen, inputs, rules)

    return round_by_gptq(uses, leaves, params, examples, how, run)


def refine(model: Model, options: QuantizeOptions, examples: Examples) -> list[QuantizeOptions]:
    """Return options with more and more bits for the weights that need them most, judged by some examples."""
    return finer_options(model, options, find_quantized(model, options), examples)


def quantized_form(form: Model, options: QuantizeOptions) -> Model:
    """Return the form of what ``quantize_weights`` makes of a model with this form."""
    uses = find_quantized(form, options)
    params = jax.eval_shape(lambda params: rounded(flatten(params)[0], uses, options), form.params)
    if options.calibrate is not None:
        multiplied = {name: use for name, use in uses.items() if use.multiplied}
        params |= {name + INPUT: jax.ShapeDtypeStruct(use.layers, jnp.float32) for name, use in multiplied.items()}
    return replace(_with_quantized_products(form, options), params=params)


def describe_share(weights: Weights) -> str:
    """Return how many bytes of a model's params are quantised, and which are not; empty where none is."""
    named = {name.removeprefix("params/"): array for name, array in weights.items() if name.startswith("params/")}
    share = share_of(_layout(named))
    return share.sentence("are") if share.quantized else ""


def describe_rounding(source: Model, result: Model) -> str:
    """Return which quantised weights have the codes that rounding to nearest gives, where others have not.

    Empty for a model that was trained further: its scales are those of other weights, and so are its codes.
    """
    weights, stored = flatten(source.params)[0], result.params
    nearest = []
    names = sorted(quantized_names(stored), key=lambda name: -weights[name].size)
    for name in names:
        codes, scale = nearest_like(weights[name], stored[name + VALUE], stored[name + SCALE])
        if (scale != stored[name + SCALE]).any():
            return ""
        if (codes == stored[name + VALUE]).all():
            nearest.append(name)
    if len(nearest) == len(names):
        return ""
    changed = f"{len(names) - len(nearest)} of {len(names)} quantised weights are not what rounding to nearest gives"
    return changed + (f"; to nearest: {', '.join(nearest)}" if nearest else "")


def _layout(params: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    return {name: (array.size, array.dtype.itemsize) for name, array in params.items()}


def rounded(params: Mapping[str, Any], uses: Mapping[str, Use], options: QuantizeOptions) -> dict[str, Any]:
    """Return flat params with two arrays in place of each weight that has a use."""
    arrays: dict[str, Any] = {name: array for name, array in params.items() if name not in uses}
    for name, use in uses.items():
        arrays |= quantized(name, params[name], use, options)
    return arrays


def find_quantized(form: Model, options: QuantizeOptions) -> dict[str, Use]:
    """Return the uses of the weights of a model, or a form, that are quantised."""
    shapes, apply = _flat(form)
    quantized_before = parts_of(quantized_names(shapes))
    found = find_uses(apply, shapes, form.state, form.inputs)
    uses = {name: use for name, use in found.items() if name not in quantized_before}
    return chosen_uses(uses, list(shapes), options)


def _flat(model: Model) -> tuple[dict[str, jax.ShapeDtypeStruct], FlatApply]:
    """Return the shapes of a model's flat params, and its function of such params."""
    leaves, restore = flatten(model.params)
    shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in leaves.items()}
    return shapes, lambda params, state, inputs: model.apply(restore(params), state, inputs)


def _with_quantized_products(model: Model, options: QuantizeOptions) -> Model:
    def train(params: PyTree, state: PyTree, inputs: Inputs, key: jax.Array) -> tuple[Outputs, PyTree]:
        del params, state, inputs, key
        raise DeploycheckError("a model with quantised weights can't be trained", hint="train before you quantise")

    rules = QuantizedArithmetic(activations=options.activations == "int8")
    return replace(model, apply=_evaluated(model, rules), train=train)


def _evaluated(model: Model, rules: QuantizedArithmetic) -> FlatApply:
    """Return a model's function of quantised params, evaluated by the rules."""
    shapes, apply = _flat(model)

    def quantized_apply(params: Mapping[str, Any], state: PyTree, inputs: Inputs) -> Outputs:
        weights = gather(params, shapes)
        return evaluate(lambda weights, given: apply(weights, state, given), shapes, weights, inputs, rules)

    return quantized_apply


def gather(params: Mapping[str, Any], weights: Collection[str]) -> dict[str, Any]:
    """Return the ``weights`` of a model by name, from flat params: the arrays of each that is quantised as one.

    What an earlier method has quantised are weights of this model as they are.
    """
    names = quantized_names(params) & set(weights)
    parts = parts_of(names)
    whole = {name: array for name, array in params.items() if name not in parts}
    return whole | {
        name: QuantizedWeight.of(params[name + VALUE], params[name + SCALE], params.get(name + INPUT)) for name in names
    }
