"""Convolutions and pooling in a form that XLA runs faster, with equal results, in a program that is trained.

On a CPU, XLA takes a naive kernel for the gradient of a convolution inside a loop, such as an epoch under
``lax.scan``: 8 to 23 times slower than the same gradient by matrix products. So before the gradient is taken, each
convolution of the traced program becomes one product over patches (im2col: Chellapilla, Puri and Simard, High
Performance Convolutional Neural Networks for Document Processing, 2006), and each pooling a reduction over strided
slices. The user's code isn't touched. ``benchmarks/train.py`` measures what is gained.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from deploycheck.stages.tracing import bind, rewritten

FASTER_ON = frozenset({"cpu"})
"""Elsewhere XLA has good kernels for both."""

LEFT_WHOLE = frozenset({"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "remat", "remat2", "checkpoint"})
"""What has a derivative of its own, or a say in what is kept for it."""


def lowered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function with the same results that is faster to train, on the device that this process uses."""
    return rewritten(function, _Lowering()) if jax.default_backend() in FASTER_ON else function


class _Lowering:
    """Rules for a traced program; its values are arrays."""

    primitives = frozenset({"conv_general_dilated", "reduce_window_max", "reduce_window_sum", *LEFT_WHOLE})

    def plain(self, value: Any) -> Any:
        return value

    def unstack(self, value: Any) -> tuple[Any, Callable[[Any], Any]]:
        return value, lambda piece: piece

    def apply(self, equation: Any, operands: Sequence[Any]) -> Any:
        match equation.primitive.name:
            case "conv_general_dilated" if _is_plain_convolution(equation):
                return _convolve(equation, *operands)
            case "reduce_window_max" if _is_plain_window(equation):
                return functools.reduce(_greater, _window_slices(equation, operands[0], -jnp.inf))
            case "reduce_window_sum" if _is_plain_window(equation):
                return functools.reduce(lax.add, _window_slices(equation, operands[0], 0.0))
        return bind(equation, operands)


def _is_plain_convolution(equation: Any) -> bool:
    known = equation.params
    floats = all(jnp.issubdtype(operand.aval.dtype, jnp.floating) for operand in equation.invars)
    return floats and known["feature_group_count"] == known["batch_group_count"] == max(known["lhs_dilation"]) == 1


def _convolve(equation: Any, image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return a convolution as a product of its patches, ``[n, ..., k * c]``, and its kernel, ``[k * c, features]``."""
    known, numbers = equation.params, equation.params["dimension_numbers"]
    (batch, channel, *space), (features, channels, *window) = numbers.lhs_spec, numbers.rhs_spec
    image = jnp.transpose(image, (batch, *space, channel))
    kernel = jnp.transpose(kernel, (*window, channels, features))
    *sizes, _, count = kernel.shape
    image = lax.pad(image, jnp.zeros((), image.dtype), ((0, 0, 0), *((*pad, 0) for pad in known["padding"]), (0, 0, 0)))
    patches = jnp.concatenate(_shifted(image, sizes, known["window_strides"], known["rhs_dilation"]), axis=-1)
    product = lax.dot_general(
        patches,
        kernel.reshape(-1, count),
        (((patches.ndim - 1,), (0,)), ((), ())),
        precision=known["precision"],
        preferred_element_type=known["preferred_element_type"],
    )
    out_batch, out_feature, *out_space = numbers.out_spec
    order = dict(zip((out_batch, *out_space, out_feature), range(product.ndim), strict=True))
    return jnp.transpose(product.astype(equation.outvars[0].aval.dtype), [order[axis] for axis in range(product.ndim)])


def _shifted(
    image: jax.Array, sizes: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> list[jax.Array]:
    """Return what each place of a window sees of an image ``[n, ..., c]``, in the order of the window's places."""
    counts = [
        (extent - (size - 1) * apart - 1) // stride + 1
        for extent, size, stride, apart in zip(image.shape[1:-1], sizes, strides, dilation, strict=True)
    ]
    shifted = []
    for place in itertools.product(*map(range, sizes)):
        starts = [at * apart for at, apart in zip(place, dilation, strict=True)]
        ends = [start + (count - 1) * stride + 1 for start, count, stride in zip(starts, counts, strides, strict=True)]
        shifted.append(lax.slice(image, (0, *starts, 0), (image.shape[0], *ends, image.shape[-1]), (1, *strides, 1)))
    return shifted


def _is_plain_window(equation: Any) -> bool:
    known, (operand,) = equation.params, equation.invars
    return (
        jnp.issubdtype(operand.aval.dtype, jnp.floating)
        and operand.aval.ndim > 2
        and max(known["base_dilation"]) == max(known["window_dilation"]) == 1
        and known["window_dimensions"][0] == known["window_dimensions"][-1] == 1
        and known["window_strides"][0] == known["window_strides"][-1] == 1
        and tuple(known["padding"][0]) == tuple(known["padding"][-1]) == (0, 0)
    )


def _window_slices(equation: Any, image: jax.Array, neutral: float) -> list[jax.Array]:
    known = equation.params
    image = lax.pad(image, jnp.asarray(neutral, image.dtype), [(*pad, 0) for pad in known["padding"]])
    sizes, strides = known["window_dimensions"][1:-1], known["window_strides"][1:-1]
    return _shifted(image, sizes, strides, [1] * len(sizes))


def _greater(first: jax.Array, second: jax.Array) -> jax.Array:
    """Return the greater of two, and of equals the first alone has the gradient, as in a reduction of windows."""
    return lax.select((first >= second) | (first != first), first, second)
