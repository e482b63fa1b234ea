"""Convolutions and pooling in a form that XLA runs faster, with equal results, in a program that is trained.

On a CPU, XLA takes a naive kernel for the gradient of a convolution inside a loop, such as an epoch under
``lax.scan``: 8 to 23 times slower than the same gradient by matrix products. So before the gradient is taken, the
traced program is rewritten. The user's code isn't touched. ``benchmarks/train.py`` measures what is gained.

``convolutions.py`` says which form a convolution gets, ``pooling.py`` makes a reduction over strided slices of pooling.
After a convolution of few channels, these slices are taken of its patches instead, so that what pooling slices, and the
gradient that belongs to it, is never in memory as a whole: the convolution is postponed (``images.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from deploycheck.stages.lowering.convolutions import is_plain_convolution, lower_convolution
from deploycheck.stages.lowering.images import Grid, Postponed, cut
from deploycheck.stages.lowering.pooling import POOLING, is_plain_window, is_tiling, pool, pool_postponed
from deploycheck.stages.tracing import bind, rewritten

FASTER_ON = frozenset({"cpu"})
"""Elsewhere XLA has good kernels for both."""

LEFT_WHOLE = frozenset({"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "remat", "remat2", "checkpoint"})
"""What has a derivative of its own, or a say in what is kept for it."""

ELEMENTWISE = frozenset({"add", "sub", "mul", "max", "min", "neg", "tanh", "logistic", "exp", "integer_pow", "square"})
"""What may be between a convolution and its pooling; so may relu, which has a derivative of its own."""


def lowered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function with the same results that is faster to train, on the device that this process uses."""
    return rewritten(function, _Lowering()) if jax.default_backend() in FASTER_ON else function


class _Lowering:
    """Rules for a traced program; its values are arrays, and postponed images."""

    primitives = frozenset({"conv_general_dilated", *POOLING, *ELEMENTWISE, *LEFT_WHOLE})

    def plain(self, value: Any) -> Any:
        return value.whole() if isinstance(value, Postponed) else value

    def unstack(self, value: Any) -> tuple[Any, Callable[[Any], Any]]:
        return self.plain(value), lambda piece: piece

    def apply(self, equation: Any, operands: Sequence[Any]) -> Any:
        name = equation.primitive.name
        after = {
            it.aval.shape for it, value in zip(equation.invars, operands, strict=True) if isinstance(value, Postponed)
        }
        if after == {equation.outvars[0].aval.shape} and _is_for_each_value(equation):
            return _for_each_value(equation, operands)
        if name in POOLING and isinstance(operands[0], Postponed) and is_tiling(equation):
            return pool_postponed(equation, operands[0])
        operands = [self.plain(operand) for operand in operands]
        if name == "conv_general_dilated" and is_plain_convolution(equation):
            return lower_convolution(equation, *operands)
        if name in POOLING and is_plain_window(equation):
            return pool(equation, operands[0])
        return bind(equation, operands)


def _is_for_each_value(equation: Any) -> bool:
    """Whether an equation computes each value of an image from the values at its place alone."""
    if equation.primitive.name in ELEMENTWISE:
        result = equation.outvars[0].aval
        return all(operand.aval.ndim in (0, result.ndim) for operand in equation.invars)
    return equation.primitive.name == "custom_jvp_call" and _is_relu(equation)


def _is_relu(equation: Any) -> bool:
    """Whether a call with a derivative of its own is ``jax.nn.relu``: values and derivatives are the same program."""
    shapes = [jax.ShapeDtypeStruct(it.aval.shape, it.aval.dtype) for it in equation.invars]

    def derivative(function: Callable[..., Any]) -> str:
        return str(jax.make_jaxpr(lambda *given: jax.jvp(function, given, given))(*shapes))

    return len(shapes) == 1 and derivative(lambda x: bind(equation, [x])[0]) == derivative(jax.nn.relu)


def _for_each_value(equation: Any, operands: Sequence[Any]) -> Any:
    axes = equation.outvars[0].aval.ndim - 2

    def compute(grid: Grid) -> jax.Array:
        pieces = [it.at(grid) if isinstance(it, Postponed) else cut(jnp.asarray(it), grid) for it in operands]
        result: jax.Array = bind(equation, pieces) if equation.primitive.name in ELEMENTWISE else jax.nn.relu(*pieces)
        return result

    result = Postponed(compute, axes)
    return [result] if equation.primitive.multiple_results else result
