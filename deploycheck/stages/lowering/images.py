"""Images of which some places are computed, and others are not: what pooling and convolutions have in common."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import jax
from jax import lax

Grid = tuple[slice, ...]
"""Some places of an image ``[n, ..., c]``: a slice for each of its axes but the first and the last."""


def everywhere(axes: int) -> Grid:
    """Return the grid of all places of an image with so many axes besides the first and the last."""
    return (slice(None),) * axes


class Postponed:
    """An image ``[n, ..., c]`` that is computed where it is used: as a whole, or at the places of a grid."""

    def __init__(self, compute: Callable[[Grid], jax.Array], axes: int) -> None:
        self._compute = compute
        self._everywhere = everywhere(axes)
        self._is_computed = False

    def whole(self) -> jax.Array:
        """Return the image."""
        # The array isn't kept: a loop's body must not see it. Where it is computed twice, XLA makes one of both.
        self._is_computed = True
        return self._compute(self._everywhere)

    def at(self, grid: Grid) -> jax.Array:
        """Return the image at these places; cut out of the whole where that is computed anyway."""
        return cut(self.whole(), grid) if self._is_computed else self._compute(grid)


def cut(array: jax.Array, grid: Grid) -> jax.Array:
    """Return the places of a grid; a scalar, and an axis along which there is only one value, are for all of them."""
    if array.ndim == 0 or grid == everywhere(len(grid)):
        return array
    return _at(
        [range(n)[piece] if n > 1 else range(1) for n, piece in zip(array.shape[1:-1], grid, strict=True)], array
    )


def shifted(
    image: jax.Array, sizes: Sequence[int], strides: Sequence[int], dilation: Sequence[int], grid: Grid
) -> list[jax.Array]:
    """Return what each place of a window sees of an image ``[n, ..., c]``, in the order of the window's places."""
    moves = []
    for extent, size, stride, apart, piece in zip(image.shape[1:-1], sizes, strides, dilation, grid, strict=True):
        reached = extent - (size - 1) * apart
        moves.append([range(at * apart, at * apart + reached, stride)[piece] for at in range(size)])
    return [_at(place, image) for place in itertools.product(*moves)]


def _at(places: Sequence[range], image: jax.Array) -> jax.Array:
    """Return an image ``[n, ..., c]`` at these indices of its axes between the first and the last."""
    first, *_, last = image.shape
    starts, ends, steps = zip(*((it.start, it[-1] + 1, it.step) for it in places), strict=True)
    return lax.slice(image, (0, *starts, 0), (first, *ends, last), (1, *steps, 1))
