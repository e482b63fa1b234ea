"""What ``invariant_to`` can do to an input: functions of an array ``[n, ...]`` to one of the same shape.

Images are ``[n, height, width]`` or ``[n, height, width, channels]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from deploycheck.errors import DeploycheckError
from deploycheck.lazy import np

Transformation = Callable[..., "np.ndarray"]


def flip_horizontal(array: np.ndarray) -> np.ndarray:
    """Return images with left and right exchanged."""
    return np.flip(_images(array), axis=2)


def flip_vertical(array: np.ndarray) -> np.ndarray:
    """Return images with top and bottom exchanged."""
    return np.flip(_images(array), axis=1)


def shift(array: np.ndarray, by: Sequence[int]) -> np.ndarray:
    """Return images moved by ``[down, right]`` pixels; what comes in repeats the edge."""
    _, height, width = _images(array).shape[:3]
    down, right = by
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    moved: np.ndarray = array[:, rows][:, :, columns]
    return moved


def scale(array: np.ndarray, by: float) -> np.ndarray:
    """Return the values times ``by``: another brightness, another unit."""
    return array * float(by)  # by an integer, NumPy would keep a small dtype, and wrap


def _images(array: np.ndarray) -> np.ndarray:
    if array.ndim < 3:
        raise DeploycheckError(f"an input of the shape {list(array.shape[1:])} is not an image, [height, width, ...]")
    return array


TRANSFORMATIONS: Mapping[str, Transformation] = {
    each.__name__: each for each in (flip_horizontal, flip_vertical, shift, scale)
}


def find_transformation(name: str, load_object: Callable[[str], Any]) -> Transformation:
    """Return a transformation: a built-in one, or the user's function by import path."""
    found = TRANSFORMATIONS.get(name) or load_object(name)
    if not callable(found):
        raise DeploycheckError(f"{name} is {type(found).__name__}, expected a function of an array")
    return cast("Transformation", found)
