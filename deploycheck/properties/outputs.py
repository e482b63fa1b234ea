"""Outputs compared: within a tolerance, or by the decision that they mean."""

from __future__ import annotations

from collections.abc import Mapping

from deploycheck.errors import DeploycheckError
from deploycheck.lazy import np


def difference(
    found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], tolerance: float, words: str
) -> str:
    """Return where outputs, ``[batch, ...]`` each, first differ; empty if they agree.

    Two values agree if they differ by at most ``tolerance + tolerance * |expected|``, or if both are NaN. ``words``
    says what the expected ones are: ``alone``.
    """
    for name, array in expected.items():
        other = found[name]
        if other.shape != array.shape:
            return f"{name} has the shape {list(other.shape)}, and {list(array.shape)} {words}"
        if array.dtype.kind == "f":
            agrees = np.isclose(other.astype(float), array.astype(float), tolerance, tolerance, equal_nan=True)
        else:
            agrees = other == array
        if not agrees.all():
            at = tuple(int(part) for part in np.argwhere(~agrees)[0])
            return f"{name}{list(at)} is {other[at]:.6g}, and {array[at]:.6g} {words}"
    return ""


def only_output(outputs: Mapping[str, np.ndarray], name: str | None) -> np.ndarray:
    """Return the output of a name, or the first one; raise ``DeploycheckError`` where there is none of this name."""
    if name is None:
        return next(iter(outputs.values()))
    if name not in outputs:
        raise DeploycheckError(f"the model has no output {name!r}, only {', '.join(outputs)}")
    return outputs[name]


def decisions(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the class with the highest value of the first output for each row, ``[batch]`` of int."""
    array = only_output(outputs, None)
    if array.ndim < 2 or array.shape[-1] < 2:
        raise DeploycheckError(
            f"the model gives {list(array.shape[1:])} numbers per example, so it makes no decision",
            hint="give the property a `tolerance`: then the outputs are compared",
        )
    decided: np.ndarray = array.argmax(axis=-1)
    return decided


def changed(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], tolerance: float | None) -> str:
    """Return how outputs changed: by more than the tolerance, or without one in the decision; empty if they didn't."""
    if tolerance is not None:
        return difference(found, expected, tolerance, "before")
    after, before = decisions(found), decisions(expected)
    at = np.argwhere(after != before)
    return f"the decision is {after[tuple(at[0])]}, and {before[tuple(at[0])]} before" if len(at) else ""
