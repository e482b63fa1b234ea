"""Convolutions 3×3 with fewer multiplications, and both of their gradients: Winograd's minimal filtering F(2×2, 3×3).

A tile of 2×2 results takes 16 products of channels, where the sums of the definition have 36: Lavin and Gray, Fast
Algorithms for Convolutional Neural Networks, 2016. Image, kernel and results go into and out of these products by sums
of few terms, with weights of 1, -1 and 1/2: the rounding is that of a usual convolution.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

SIZE = 3
"""The height and the width of a kernel."""

_OF_IMAGE = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_OF_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_TO_RESULT = ((1, 1, 1, 0), (0, 1, -1, -1))
_STEP, _TILE = len(_TO_RESULT), len(_OF_IMAGE)

Matrix = Sequence[Sequence[float]]
Cells = Sequence[Sequence[jax.Array]]
"""What all tiles have at each of their places, in rows and columns: arrays of one shape, ``[n, rows, columns, c]``."""
Padding = tuple[tuple[int, int], tuple[int, int]]
"""The zeros before and after an image's rows, and its columns."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(image: jax.Array, kernel: jax.Array, padding: Padding, precision: lax.PrecisionLike) -> jax.Array:
    """Return the convolution of an image ``[n, h, w, c]`` and a kernel ``[3, 3, c, f]`` in strides of 1."""
    product = functools.partial(_product, over=(1, 0), precision=precision)
    height, width = (n + sum(pads) - (SIZE - 1) for n, pads in zip(image.shape[1:3], padding, strict=True))
    products = _each(product, _tiles_of_image(image, padding), _transformed(_OF_KERNEL, kernel))
    return _whole(_interleaved(_transformed(_TO_RESULT, products))[:, :height, :width])


def _forward(
    image: jax.Array, kernel: jax.Array, padding: Padding, precision: lax.PrecisionLike
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return convolve(image, kernel, padding, precision), (image, kernel)


def _backward(
    padding: Padding, precision: lax.PrecisionLike, kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the gradients of image and kernel: the steps of ``convolve`` transposed, from its end to its start."""
    image, kernel = kept
    of_products = _tiles_of_gradient(_whole(gradient))
    with_image = functools.partial(_product, over=(0, 0), precision=precision)
    with_kernel = functools.partial(_product, over=(1, 1), precision=precision)
    of_kernel = _each(with_image, _tiles_of_image(image, padding), of_products)
    of_tiles = _each(with_kernel, of_products, _transformed(_OF_KERNEL, kernel))
    return (
        _sum_of_tiles(_transformed(_transposed(_OF_IMAGE), of_tiles), image.shape, padding),
        jnp.stack([jnp.stack(row) for row in _transformed(_transposed(_OF_KERNEL), of_kernel)]),
    )


convolve.defvjp(_forward, _backward)


def _whole(array: jax.Array) -> jax.Array:
    """Return the same array; XLA doesn't compute its sums again in each of the places that use it."""
    result: jax.Array = lax.optimization_barrier(array)
    return result


def _product(a: jax.Array, b: jax.Array, *, over: tuple[int, int], precision: lax.PrecisionLike) -> jax.Array:
    """Return the product of two arrays, each as a matrix with the channels last, over these axes of the matrices."""
    # As matrices, because XLA moves an array in memory before it sums over several axes.
    matrix, other = (it.reshape(-1, it.shape[-1]) for it in (a, b))
    product = lax.dot_general(matrix, other, (((over[0],), (over[1],)), ((), ())), precision=precision)
    return product.reshape(*a.shape[:-1], -1) if over[0] == 1 else product


def _tiles_of_image(image: jax.Array, padding: Padding) -> Cells:
    """Return the tiles 4×4 of an image that lie 2 apart, transformed."""
    counts = [-(-(n + sum(pads) - (SIZE - 1)) // _STEP) for n, pads in zip(image.shape[1:3], padding, strict=True)]
    ends = [(count - 1) * _STEP + 1 for count in counts]
    pads = [
        (low, end - 1 + _TILE - n - low, 0) for n, (low, _), end in zip(image.shape[1:3], padding, ends, strict=True)
    ]
    image = lax.pad(image, jnp.zeros((), image.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
    return _transformed(_OF_IMAGE, [[_every_second(image, (i, j), ends) for j in range(_TILE)] for i in range(_TILE)])


def _tiles_of_gradient(gradient: jax.Array) -> Cells:
    """Return the tiles 2×2 of the gradient of a result, as the gradients of the products."""
    sizes = gradient.shape[1:3]
    gradient = jnp.pad(gradient, ((0, 0), *((0, n % _STEP) for n in sizes), (0, 0)))
    ends = [n + n % _STEP - 1 for n in sizes]
    cells = [[_every_second(gradient, (i, j), ends) for j in range(_STEP)] for i in range(_STEP)]
    return _transformed(_transposed(_TO_RESULT), cells)


def _every_second(image: jax.Array, start: tuple[int, int], extent: Sequence[int]) -> jax.Array:
    (top, left), (height, width) = start, extent
    return image[:, top : top + height : _STEP, left : left + width : _STEP]


def _sum_of_tiles(cells: Cells, shape: Sequence[int], padding: Padding) -> jax.Array:
    """Return the image of this shape that has, at each place, the sum of all tiles 4×4 there."""
    cells = [[_overlapped(cells[i][j], cells[i + _STEP][j], 1) for j in range(_TILE)] for i in range(_STEP)]
    cells = [[_overlapped(row[j], row[j + _STEP], 2) for j in range(_STEP)] for row in cells]
    (top, _), (left, _) = padding
    return _whole(_interleaved(cells)[:, top : top + shape[1], left : left + shape[2]])


def _overlapped(first: jax.Array, second: jax.Array, axis: int) -> jax.Array:
    """Return the sum of both, the second one place further along an axis."""
    low, high = ([(0, 0)] * first.ndim for _ in range(2))
    low[axis], high[axis] = (0, 1), (1, 0)
    return jnp.pad(first, low) + jnp.pad(second, high)


def _interleaved(cells: Cells) -> jax.Array:
    """Return the image whose tiles have these places."""
    count, rows, columns, channels = cells[0][0].shape
    stacked = jnp.stack([jnp.stack(row, axis=3) for row in cells], axis=2)
    return stacked.reshape(count, rows * _STEP, columns * _STEP, channels)


def _each(function: Callable[[jax.Array, jax.Array], jax.Array], a: Cells, b: Cells) -> Cells:
    return [[function(*pair) for pair in zip(*rows, strict=True)] for rows in zip(a, b, strict=True)]


def _transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


def _transformed(matrix: Matrix, cells: Cells | jax.Array) -> Cells:
    """Return matrix · cells · matrixᵀ."""
    rows = [[_sum(weights, column) for column in zip(*cells, strict=True)] for weights in matrix]
    return [[_sum(weights, row) for weights in matrix] for row in rows]


def _sum(weights: Sequence[float], arrays: Sequence[jax.Array]) -> jax.Array:
    terms = [it if weight == 1 else weight * it for weight, it in zip(weights, arrays, strict=True) if weight]
    return functools.reduce(jnp.add, terms)
