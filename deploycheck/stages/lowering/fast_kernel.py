"""Convolutions by XLA's own kernel, with gradients that are convolutions for which XLA has its fast kernel as well.

All of them have the channels last, because XLA has its fast kernel for this order alone.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from deploycheck.stages.lowering.winograd import Padding


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(image: jax.Array, kernel: jax.Array, padding: Padding, precision: lax.PrecisionLike) -> jax.Array:
    """Return the convolution of an image ``[n, h, w, c]`` and a kernel ``[h, w, c, f]`` in strides of 1."""
    return _convolution(image, kernel, padding, precision)


def _forward(
    image: jax.Array, kernel: jax.Array, padding: Padding, precision: lax.PrecisionLike
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return convolve(image, kernel, padding, precision), (image, kernel)


def _backward(
    padding: Padding, precision: lax.PrecisionLike, kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    image, kernel = kept
    sizes = kernel.shape[:2]
    around = [(size - 1 - low, size - 1 - high) for size, (low, high) in zip(sizes, padding, strict=True)]
    turned = _in_memory(lax.rev(kernel, (0, 1)), (0, 1, 3, 2))
    of_image = _convolution(gradient, turned, around, precision)
    # The kernel's gradient sums over the batch, as a convolution does over channels; its window is a result's size.
    images, gradients = _in_memory(image, (3, 1, 2, 0)), _in_memory(gradient, (1, 2, 0, 3))
    of_kernel = _convolution(images, gradients, padding, precision)
    return of_image, jnp.transpose(of_kernel, (1, 2, 0, 3))


convolve.defvjp(_forward, _backward)


def _convolution(
    image: jax.Array, kernel: jax.Array, padding: Sequence[tuple[int, int]], precision: lax.PrecisionLike
) -> jax.Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(image, kernel, (1, 1), padding, dimension_numbers=numbers, precision=precision)


def _in_memory(array: jax.Array, order: Sequence[int]) -> jax.Array:
    """Return an array with its axes in another order, and moved so: XLA has no fast kernel for one that isn't."""
    moved: jax.Array = lax.optimization_barrier(jnp.transpose(array, order))
    return moved
