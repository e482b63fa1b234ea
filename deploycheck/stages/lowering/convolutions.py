"""Which form a convolution gets.

- It becomes one product over patches (im2col: Chellapilla, Puri and Simard, High Performance Convolutional Neural
  Networks for Document Processing, 2006). One of few channels is postponed, for the pooling after it.
- One of more channels stays as it is where XLA's own kernel is faster, and gets gradients that have this kernel too
  (``fast_kernel.py``). With yet more channels, one of 3×3 is computed by Winograd's filtering (``winograd.py``).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from deploycheck.stages.lowering import fast_kernel, winograd
from deploycheck.stages.lowering.images import Grid, Postponed, everywhere, shifted

FEW_CHANNELS = 4
"""An image of at most so many channels has small patches: their product costs less than moving its results."""

MANY_CHANNELS = 32
"""From so many channels on, of image and result, products cost more than the sums of Winograd's filtering.

For a convolution alone, ``benchmarks/convolutions.py`` finds both forms about equal at 32 and Winograd's faster from 64
on; in a network (``benchmarks/train.py``), it is faster at 32 already.
"""


def is_plain_convolution(equation: Any) -> bool:
    """Whether a convolution is of floats, in one group, and of an image without gaps."""
    known = equation.params
    floats = all(jnp.issubdtype(operand.aval.dtype, jnp.floating) for operand in equation.invars)
    return floats and known["feature_group_count"] == known["batch_group_count"] == max(known["lhs_dilation"]) == 1


def lower_convolution(equation: Any, image: jax.Array, kernel: jax.Array) -> jax.Array | Postponed:
    """Return the result of a plain convolution in the form that is fastest for it."""
    numbers = equation.params["dimension_numbers"]
    product = functools.partial(_product, equation, image, kernel)
    axes = image.ndim - 2
    if image.shape[numbers.lhs_spec[1]] <= FEW_CHANNELS:
        is_channels_last = numbers.out_spec == (0, axes + 1, *range(1, axes + 1))
        return Postponed(product, axes) if is_channels_last else product(everywhere(axes))
    if not _has_fast_kernel(equation):
        return product(everywhere(axes))
    convolve = winograd.convolve if _has_costly_products(equation) else fast_kernel.convolve
    image, kernel = _channels_last(image, numbers.lhs_spec), _kernel_last(kernel, numbers)
    result = convolve(image, kernel, tuple(equation.params["padding"]), equation.params["precision"])
    return _channels_as_in(result, numbers)


def _has_fast_kernel(equation: Any) -> bool:
    """Whether XLA has a fast kernel for a convolution and for those that are its gradients."""
    known, (image, kernel) = equation.params, (operand.aval for operand in equation.invars)
    window = [kernel.shape[axis] for axis in known["dimension_numbers"].rhs_spec[2:]]
    return (
        image.dtype == kernel.dtype == equation.outvars[0].aval.dtype == jnp.float32
        and len(window) == 2
        and math.prod(window) > 1
        and max(known["window_strides"]) == max(known["rhs_dilation"]) == 1
        and all(0 <= pad < size for pads, size in zip(known["padding"], window, strict=True) for pad in pads)
    )


def _has_costly_products(equation: Any) -> bool:
    """Whether a convolution with a fast kernel is faster by Winograd's filtering."""
    kernel, numbers = equation.invars[1].aval, equation.params["dimension_numbers"]
    features, channels, *window = (kernel.shape[axis] for axis in numbers.rhs_spec)
    return window == [winograd.SIZE] * 2 and min(channels, features) >= MANY_CHANNELS


def _product(equation: Any, image: jax.Array, kernel: jax.Array, grid: Grid) -> jax.Array:
    """Return a convolution at some places, as a product of patches, ``[n, ..., k * c]``, and kernel, ``[k * c, f]``."""
    known, numbers = equation.params, equation.params["dimension_numbers"]
    kernel = _kernel_last(kernel, numbers)
    patches = _patches(equation, _channels_last(image, numbers.lhs_spec), kernel.shape[:-2], grid)
    # As a matrix: of more axes, XLA would move the gradient in memory before it sums over them.
    product = lax.dot_general(
        patches.reshape(-1, patches.shape[-1]),
        kernel.reshape(-1, kernel.shape[-1]),
        (((1,), (0,)), ((), ())),
        precision=known["precision"],
        preferred_element_type=known["preferred_element_type"],
    ).reshape(*patches.shape[:-1], -1)
    return _channels_as_in(product.astype(equation.outvars[0].aval.dtype), numbers)


def _patches(equation: Any, image: jax.Array, sizes: Sequence[int], grid: Grid) -> jax.Array:
    """Return what the kernel sees of an image ``[n, ..., c]`` at each place of a grid, ``[n, ..., k * c]``."""
    known = equation.params
    image = lax.pad(image, jnp.zeros((), image.dtype), ((0, 0, 0), *((*pad, 0) for pad in known["padding"]), (0, 0, 0)))
    return jnp.concatenate(shifted(image, sizes, known["window_strides"], known["rhs_dilation"], grid), axis=-1)


def _channels_last(image: jax.Array, spec: Sequence[int]) -> jax.Array:
    """Return an image as ``[n, ..., c]`` whose axes are where ``spec`` (batch, channels, space) says."""
    batch, channels, *space = spec
    return jnp.transpose(image, (batch, *space, channels))


def _kernel_last(kernel: jax.Array, numbers: Any) -> jax.Array:
    """Return a kernel as ``[..., c, features]``."""
    features, channels, *space = numbers.rhs_spec
    return jnp.transpose(kernel, (*space, channels, features))


def _channels_as_in(image: jax.Array, numbers: Any) -> jax.Array:
    """Return an image ``[n, ..., c]`` with its axes where those of the results are."""
    batch, channels, *space = numbers.out_spec
    order = dict(zip((batch, *space, channels), range(image.ndim), strict=True))
    return jnp.transpose(image, [order[axis] for axis in range(image.ndim)])
