"""Quantisation of weights and activations to int8, through qwix.

The network is already one pure function, so it is rewritten as such: it is traced, and every matrix product or
convolution with one of its weights is evaluated by qwix on quantised operands. No framework's module system is
involved, so a linen, an nnx and a plain model are quantised by the same code.

Weights are quantised once, symmetrically, one scale an output channel; activations as they arrive, one scale an
example (and a position, for a matrix product), so that an answer doesn't depend on its neighbours in a batch.
Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import qwix
from jax.extend import core

from deploycheck.errors import DeploycheckError
from deploycheck.stages.model import Inputs, Method, Network, Weights

VALUE, SCALE = "/qvalue", "/scale"
"""Suffixes under which a quantised weight's two arrays stand in place of the weight."""

Apply = Callable[[Weights, Inputs], jax.Array]


def compress(network: Network, options: Mapping[str, Any], example: Inputs, where: str) -> Network:
    """Return the network with every weight of a matrix product or convolution in int8.

    ``options`` are ``weights: int8`` and, optionally, ``activations: int8``. ``example`` is one batch of raw
    inputs, to trace with. Raises where nothing in the network can be quantised.
    """
    trace = _Trace(set(network.weights))
    _traced(network.apply, network.weights, example, trace)
    if not trace.found:
        raise DeploycheckError(
            "no weight of this model is an operand of a matrix product or a convolution: nothing to quantise",
            where=where,
        )
    weights = dict(network.weights)
    for name, axes in trace.found.items():
        quantized = qwix.quantize(weights.pop(name), jnp.int8, channelwise_axes=axes)
        weights |= {name + VALUE: quantized.qvalue, name + SCALE: quantized.scale}
    return Network(weights, rewrite(network.apply, options))


def rewrite(apply: Apply, options: Mapping[str, Any]) -> Apply:
    """Return ``apply`` for quantised weights, as ``compress`` leaves them."""
    arithmetic = _Int8(activations=options.get("activations") == "int8")

    def quantized_apply(weights: Weights, inputs: Inputs) -> jax.Array:
        return _traced(apply, _gather(weights), inputs, arithmetic)

    return quantized_apply


METHOD = Method(compress, rewrite)


def _gather(weights: Weights) -> dict[str, Any]:
    """Put the pairs of arrays together again: name to array or to quantised array."""
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
    """A weight on its way through a trace, still recognisable."""

    name: str
    array: jax.Array


class _Trace:
    """Finds which weights are operands of a product, and along which axes each gets its scales."""

    def __init__(self, names: set[str]) -> None:
        self.names = names
        self.found: dict[str, list[int]] = {}

    def wrap(self, name: str, array: Any) -> Any:
        return _Named(name, array)

    def is_weight(self, value: Any) -> bool:
        return isinstance(value, _Named)

    def plain(self, value: Any) -> Any:
        return value.array if isinstance(value, _Named) else value

    def product(self, equation: Any, operands: Sequence[Any]) -> Any:
        weight = operands[1]
        if isinstance(weight, _Named) and jnp.issubdtype(weight.array.dtype, jnp.floating):
            self.found.setdefault(weight.name, _channels(equation, side=1))
        return _bind(equation, [self.plain(operand) for operand in operands])


class _Int8:
    """Evaluates products that have a quantised weight in int8."""

    def __init__(self, *, activations: bool) -> None:
        self.activations = activations

    def wrap(self, name: str, array: Any) -> Any:
        del name
        return array

    def is_weight(self, value: Any) -> bool:
        return isinstance(value, qwix.QArray)

    def plain(self, value: Any) -> Any:
        return qwix.dequantize(value) if isinstance(value, qwix.QArray) else value

    def product(self, equation: Any, operands: Sequence[Any]) -> Any:
        activation, weight = operands
        if not self.is_weight(weight) or self.is_weight(activation):
            return _bind(equation, [self.plain(operand) for operand in operands])
        if self.activations:
            activation = qwix.quantize(activation, jnp.int8, channelwise_axes=_channels(equation, side=0))
        known = equation.params
        if equation.primitive.name == "dot_general":
            return qwix.dot_general(activation, weight, known["dimension_numbers"])
        if not self.activations:
            return _bind(equation, [activation, self.plain(weight)])
        return qwix.conv_general_dilated(
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


def _channels(equation: Any, side: int) -> list[int]:
    """Return the axes of an operand (0 activation, 1 weight) that get a scale each: those not summed over."""
    numbers = equation.params["dimension_numbers"]
    if equation.primitive.name == "dot_general":
        (contracted, _) = numbers
        return [axis for axis in range(equation.invars[side].aval.ndim) if axis not in contracted[side]]
    return [numbers.lhs_spec[0] if side == 0 else numbers.rhs_spec[0]]


def _traced(apply: Apply, weights: Mapping[str, Any], inputs: Inputs, arithmetic: _Trace | _Int8) -> jax.Array:
    """Trace ``apply`` on float weights and evaluate the trace with ``arithmetic``."""
    floats = {
        name: jax.ShapeDtypeStruct(array.shape, jnp.float32 if isinstance(array, qwix.QArray) else array.dtype)
        for name, array in weights.items()
    }
    closed = jax.make_jaxpr(apply)(floats, dict(inputs))
    arguments = [arithmetic.wrap(name, weights[name]) for name in sorted(weights)]
    arguments += [inputs[name] for name in sorted(inputs)]
    (logits,) = _evaluate(closed.jaxpr, closed.consts, arguments, arithmetic)
    plain: jax.Array = arithmetic.plain(logits)
    return plain


def _evaluate(jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any], arithmetic: Any) -> list[Any]:
    """Interpret a jaxpr, products by ``arithmetic``, calls by going into them."""
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, constants, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))
    for equation in jaxpr.eqns:
        operands = [v.val if isinstance(v, core.Literal) else values[v] for v in equation.invars]
        inner = _called(equation)
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            results = [arithmetic.product(equation, operands)]
        elif inner is not None:
            results = _evaluate(inner.jaxpr, inner.consts, operands, arithmetic)
        else:
            result = _bind(equation, [arithmetic.plain(operand) for operand in operands])
            results = result if equation.primitive.multiple_results else [result]
        values.update(zip(equation.outvars, results, strict=True))
    return [v.val if isinstance(v, core.Literal) else values[v] for v in jaxpr.outvars]


def _called(equation: Any) -> core.ClosedJaxpr | None:
    """Return what a call runs, where the call takes and gives just what its body does."""
    if equation.primitive.name not in (
        "jit",
        "pjit",
        "closed_call",
        "custom_jvp_call",
        "custom_vjp_call",
        "remat",
    ):
        return None
    inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    return inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, ())


def _bind(equation: Any, operands: Sequence[Any]) -> Any:
    return equation.primitive.bind(*operands, **equation.primitive.get_bind_params(equation.params))
