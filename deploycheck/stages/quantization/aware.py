"""The rules by which a traced program is evaluated while its weights are trained to be quantised.

Products are computed in float, on numbers that are rounded as ``arithmetic.py`` rounds them. So a result is what is
served, up to the rounding of float sums, and has a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import qwix
from jax import lax

from deploycheck.stages.quantization.arithmetic import QuantizedArithmetic, QuantizedWeight, activation_quantizer
from deploycheck.stages.quantization.axes import PRODUCTS, REARRANGING
from deploycheck.stages.quantization.products import INTEGERS, convolves_in_int8, moved_scales, moves_scales
from deploycheck.stages.tracing import bind


@dataclass(frozen=True)
class AwareWeight:
    """A weight in a program: the same numbers as a float array with a gradient, and quantised."""

    array: Any
    quantized: QuantizedWeight

    @classmethod
    def of(cls, weight: jax.Array, quantized: QuantizedWeight) -> AwareWeight:
        """Return a float weight that is seen as its quantised form."""
        return cls(straight_through(weight, quantized.dequantized), quantized)


def straight_through(exact: jax.Array, rounded: jax.Array) -> jax.Array:
    """Return ``rounded``, with the gradient of ``exact``."""
    return lax.stop_gradient(rounded) + (exact - lax.stop_gradient(exact))


Meet = Callable[[Any, jax.Array, QuantizedWeight, int], jax.Array]
"""``meet(equation, activation, weight, side)`` returns the activation that meets operand ``side``, a weight."""


def as_it_is(equation: Any, activation: jax.Array, weight: QuantizedWeight, side: int) -> jax.Array:
    """Return the activation."""
    del equation, weight, side
    return activation


class AwareArithmetic:
    """Rules that evaluate a program in float on ``AwareWeight``; ``meet`` sees, and may change, what they meet."""

    primitives = QuantizedArithmetic.primitives

    def __init__(self, meet: Meet = as_it_is) -> None:
        self._meet = meet
        self._moves = QuantizedArithmetic(activations=False)

    def plain(self, value: Any) -> Any:
        """Return a weight as a float array, and any other value as it is."""
        return value.array if isinstance(value, AwareWeight) else value

    def unstack(self, value: Any) -> tuple[Any, Callable[[Any], Any]]:
        """Return the arrays of each layer, and how they make its weight."""
        if not isinstance(value, AwareWeight):
            return value, lambda array: array
        layers, make = self._moves.unstack(value.quantized)
        return (value.array, layers), lambda parts: AwareWeight(parts[0], make(parts[1]))

    def apply(self, equation: Any, operands: Sequence[Any]) -> Any:
        """Evaluate an equation in float, and where it only moves a weight, move its codes too."""
        weights = [side for side, operand in enumerate(operands) if isinstance(operand, AwareWeight)]
        name = equation.primitive.name
        arrays = [self.plain(operand) for operand in operands]
        if name in PRODUCTS and len(weights) == 1:
            (side,) = weights
            arrays[1 - side] = self._meet(equation, arrays[1 - side], operands[side].quantized, side)
        results = bind(equation, arrays)
        if name not in REARRANGING or not weights:
            return results
        moved = self._moves.apply(equation, [it.quantized if isinstance(it, AwareWeight) else it for it in operands])
        if not equation.primitive.multiple_results:
            return _paired(results, moved)
        return [_paired(*pair) for pair in zip(results, moved, strict=True)]


def _paired(array: Any, moved: Any) -> Any:
    return AwareWeight(array, moved) if isinstance(moved, QuantizedWeight) else array


def round_as_served(equation: Any, activation: jax.Array, weight: QuantizedWeight, side: int) -> jax.Array:
    """Return an activation as its product with operand ``side`` rounds it: not at all where that is in float."""
    form = _form_in_int8(equation, activation, weight.array, side)
    if form is None:
        return activation
    factors, kept = form
    exact = activation.astype(jnp.promote_types(activation.dtype, jnp.float32)) * factors
    quantized = activation_quantizer(equation, weight, side)(exact, kept)
    rounded = qwix.dequantize(quantized)
    # What is cut off at the end of a range has no gradient.
    inside = jnp.abs(rounded - exact) <= quantized.scale
    passed = jnp.where(inside, straight_through(exact, rounded), lax.stop_gradient(rounded))
    found: jax.Array = (passed / factors).astype(activation.dtype)
    return found


def _form_in_int8(equation: Any, activation: jax.Array, weight: Any, side: int) -> tuple[Any, list[int]] | None:
    """Return by what an activation is multiplied before it is rounded, and the axes that each index has a scale of.

    None where the product is served in float.
    """
    numbers = equation.params["dimension_numbers"]
    if equation.primitive.name == "conv_general_dilated":
        return (1, [numbers.lhs_spec[0]]) if side == 1 and convolves_in_int8(equation, weight) else None
    if weight.qvalue.dtype not in INTEGERS:
        return None
    along = (numbers[0][1 - side], numbers[0][side])
    kept = [axis for axis in range(activation.ndim) if axis not in along[0]]
    if not moves_scales(equation, weight, side):
        return 1, kept
    if any(size > 1 for axis, size in enumerate(weight.scale.shape) if axis not in along[1]):
        return None
    return moved_scales(activation, weight, along), kept
