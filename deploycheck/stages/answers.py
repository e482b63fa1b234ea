"""Which class a model answers: ties and outputs that are not finite count against the model.

Without that rule a constant model would be right wherever the label happens to be sorted first.
"""

from __future__ import annotations

from deploycheck.lazy import np

NO_ANSWER = -1
"""In place of a class, where an example has no answer. No label equals it."""


def find_answers(outputs: np.ndarray) -> np.ndarray:
    """Return the class of each example's highest logit, ``[n]`` of int, of ``outputs``, ``[n, classes]``.

    ``NO_ANSWER`` where several classes share the highest logit, or a logit is not finite.
    """
    highest = outputs.max(axis=-1, keepdims=True)
    tied = (outputs == highest).sum(axis=-1) > 1
    return np.where(_is_finite(outputs) & ~tied, outputs.argmax(axis=-1), NO_ANSWER)


def is_right(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Return which examples are answered with their label, ``[n]`` of bool."""
    right: np.ndarray = find_answers(outputs) == labels
    return right


def is_tied(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Return for which examples the label shares the highest logit with another class, ``[n]`` of bool."""
    last = outputs.shape[-1] - 1
    own = np.take_along_axis(outputs, np.minimum(labels, last)[:, None], axis=-1)
    highest = outputs.max(axis=-1, keepdims=True)
    is_several = (outputs == highest).sum(axis=-1) > 1
    tied: np.ndarray = is_several & (own[:, 0] == highest[:, 0]) & (labels <= last) & _is_finite(outputs)
    return tied


def is_among_highest(labels: np.ndarray, outputs: np.ndarray, k: int) -> np.ndarray:
    """Return for which examples the label is among the ``k`` highest logits, ``[n]`` of bool.

    Classes with the label's own logit rank before it. A label that the model has no logit for is not among them.
    """
    last = outputs.shape[-1] - 1
    own = np.take_along_axis(outputs, np.minimum(labels, last)[:, None], axis=-1)
    among: np.ndarray = ((outputs >= own).sum(axis=-1) <= k) & (labels <= last) & _is_finite(outputs)
    return among


def _is_finite(outputs: np.ndarray) -> np.ndarray:
    finite: np.ndarray = np.isfinite(outputs).all(axis=-1)
    return finite
