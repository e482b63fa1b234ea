"""The arithmetic of quantisation to int8, through qwix, on a traced model.

A model is one pure function of named weights. It is traced, and every matrix product or convolution with one of
its weights is evaluated by qwix on quantised operands. No framework's module system is involved, so a linen, an
nnx and a plain model are quantised by the same code.

Weights are quantised once, symmetrically, with one scale per output channel; activations as they arrive, with one
scale per example (and per position, for a matrix product), so that an output doesn't depend on the other examples
in its batch. Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference, 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import jax
import jax.numpy as jnp
import qwix

from deploycheck.errors import DeploycheckError
from deploycheck.stages.model import Model, PyTree, flatten
from deploycheck.stages.network import Inputs, Outputs, Weights
from deploycheck.stages.tracing import bind, evaluate

VALUE, SCALE = "/qvalue", "/scale"
"""Suffixes of the two arrays that take the place of a quantised weight."""
NAMED = 4
"""How many of the weights that stay in float are named."""
PRODUCTS = frozenset({"dot_general", "conv_general_dilated"})

FlatApply = Callable[[Mapping[str, Any], PyTree, Inputs], Outputs]
"""A model's function of flat params, ``{"conv/kernel": array}``, of its state and of its inputs."""


def quantize_weights(model: Model, *, activations: bool, at_least: float) -> Model:
    """Return the model with every weight that is the second operand of a matrix product or convolution in int8.

    Its params become flat. Raises ``DeploycheckError`` where less than ``at_least`` of its parameters would be int8.
    """
    found = _find(model)
    params = dict(flatten(model.params)[0])
    _refuse_little({name: array.size for name, array in params.items()}, found, at_least)
    for name, axes in found.items():
        quantized = qwix.quantize(params.pop(name), jnp.int8, channelwise_axes=axes)
        params |= {name + VALUE: quantized.qvalue, name + SCALE: quantized.scale}
    return replace(_with_int8_products(model, activations=activations), params=params)


def _refuse_little(sizes: Mapping[str, int], found: Collection[str], at_least: float) -> None:
    """Raise ``DeploycheckError`` where a model that is called int8 would hardly be."""
    if found and sum(sizes[name] for name in found) >= at_least * sum(sizes.values()):
        return
    raise DeploycheckError(
        f"only {_counted(sizes, found, 'would be int8')}",
        hint="only a weight that goes unchanged into a matrix product or convolution, as its second operand, becomes "
        "int8; not one that is cast, transposed, reshaped, used in a loop or in an embedding. To accept less, write "
        "`quantize: {at_least: ...}`",
    )


def describe_share(weights: Weights) -> str:
    """Return how many of a model's params are int8, and which are not; empty where none is int8."""
    params = {name.removeprefix("params/"): array for name, array in weights.items() if name.startswith("params/")}
    whole = _gather(params)
    found = {name: array for name, array in whole.items() if isinstance(array, qwix.QArray)}
    sizes = {name: (found[name].qvalue if name in found else array).size for name, array in whole.items()}
    return _counted(sizes, found, "are int8") if found else ""


def _counted(sizes: Mapping[str, int], found: Collection[str], are: str) -> str:
    total, reached = sum(sizes.values()), sum(sizes[name] for name in found)
    left = sorted(sizes.keys() - set(found), key=lambda name: -sizes[name])
    named = ", ".join(f"{name} ({sizes[name]:,})" for name in left[:NAMED])
    more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
    return f"{reached:,} of {total:,} parameters {are}" + (f"; left in float: {named}{more}" if left else "")


def quantized_form(form: Model, *, activations: bool) -> Model:
    """Return the form of what ``quantize_weights`` makes of a model with this form."""
    found = _find(form)

    def quantized(params: PyTree) -> PyTree:
        flat = dict(flatten(params)[0])
        for name, axes in found.items():
            array = qwix.quantize(flat.pop(name), jnp.int8, channelwise_axes=axes)
            flat |= {name + VALUE: array.qvalue, name + SCALE: array.scale}
        return flat

    params = jax.eval_shape(quantized, form.params)
    return replace(_with_int8_products(form, activations=activations), params=params)


def _find(form: Model) -> dict[str, list[int]]:
    """Return the weights that are operands of a product, and along which axes each gets its scales."""
    shapes, apply = _flat(form)
    rules = _Find()

    def walk(params: Mapping[str, Any], state: PyTree, inputs: Inputs) -> Outputs:
        named = {name: _Named(name, array) for name, array in params.items()}
        return evaluate(lambda weights, given: apply(weights, state, given), shapes, named, inputs, rules)

    jax.eval_shape(walk, shapes, form.state, dict(form.inputs))
    return rules.found


def _flat(model: Model) -> tuple[dict[str, jax.ShapeDtypeStruct], FlatApply]:
    """Return the shapes of a model's flat params, and its function of such params."""
    leaves, restore = flatten(model.params)
    shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in leaves.items()}
    return shapes, lambda params, state, inputs: model.apply(restore(params), state, inputs)


def _with_int8_products(model: Model, *, activations: bool) -> Model:
    shapes, apply = _flat(model)
    rules = _Int8(activations=activations)

    def quantized_apply(params: PyTree, state: PyTree, inputs: Inputs) -> Outputs:
        return evaluate(lambda weights, given: apply(weights, state, given), shapes, _gather(params), inputs, rules)

    def train(params: PyTree, state: PyTree, inputs: Inputs, key: jax.Array) -> tuple[Outputs, PyTree]:
        del params, state, inputs, key
        raise DeploycheckError("a model with int8 weights can't be trained", hint="train before you quantise")

    return replace(model, apply=quantized_apply, train=train)


def _gather(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights by name, each pair of arrays as one quantised array."""
    whole: dict[str, Any] = {}
    for name, array in weights.items():
        if name.endswith(VALUE):
            base = name.removesuffix(VALUE)
            whole[base] = qwix.QArray(array, weights[base + SCALE], None, jnp.int8)
        elif not (name.endswith(SCALE) and name.removesuffix(SCALE) + VALUE in weights):
            whole[name] = array
    return whole


@dataclass(frozen=True)
class _Named:
    """A weight in a trace, with its name."""

    name: str
    array: jax.Array


class _Find:
    """Rules that note which weights are operands of a product, and along which axes each gets its scales."""

    primitives = PRODUCTS

    def __init__(self) -> None:
        self.found: dict[str, list[int]] = {}

    def plain(self, value: Any) -> Any:
        return value.array if isinstance(value, _Named) else value

    def apply(self, equation: Any, operands: Sequence[Any]) -> Any:
        weight = operands[1]
        if isinstance(weight, _Named) and jnp.issubdtype(weight.array.dtype, jnp.floating):
            self.found.setdefault(weight.name, _channels(equation, side=1))
        return bind(equation, [self.plain(operand) for operand in operands])


class _Int8:
    """Rules that evaluate products with a quantised weight in int8."""

    primitives = PRODUCTS

    def __init__(self, *, activations: bool) -> None:
        self.activations = activations

    def plain(self, value: Any) -> Any:
        return qwix.dequantize(value) if isinstance(value, qwix.QArray) else value

    def apply(self, equation: Any, operands: Sequence[Any]) -> Any:
        activation, weight = operands
        if not isinstance(weight, qwix.QArray) or isinstance(activation, qwix.QArray):
            return bind(equation, [self.plain(operand) for operand in operands])
        if self.activations:
            activation = qwix.quantize(activation, jnp.int8, channelwise_axes=_channels(equation, side=0))
        dtype = equation.outvars[0].aval.dtype
        return self._product(equation, activation, weight).astype(dtype)

    def _product(self, equation: Any, activation: Any, weight: Any) -> jax.Array:
        known = equation.params
        if equation.primitive.name == "dot_general":
            product: jax.Array = qwix.dot_general(activation, weight, known["dimension_numbers"])
            return product
        if not self.activations:
            plain = self.plain(weight).astype(equation.invars[1].aval.dtype)
            return cast("jax.Array", bind(equation, [activation, plain]))
        convolution: jax.Array = qwix.conv_general_dilated(
            activation,
            weight,
            known["window_strides"],
            known["padding"],
            lhs_dilation=known["lhs_dilation"],
            rhs_dilation=known["rhs_dilation"],
            dimension_numbers=known["dimension_numbers"],
            feature_group_count=known["feature_group_count"],
            batch_group_count=known["batch_group_count"],
        )
        return convolution


def _channels(equation: Any, side: int) -> list[int]:
    """Return the axes of an operand (0 activation, 1 weight) that get one scale each: those not summed over."""
    numbers = equation.params["dimension_numbers"]
    if equation.primitive.name == "dot_general":
        (contracted, _) = numbers
        return [axis for axis in range(equation.invars[side].aval.ndim) if axis not in contracted[side]]
    return [numbers.lhs_spec[0] if side == 0 else numbers.rhs_spec[0]]
