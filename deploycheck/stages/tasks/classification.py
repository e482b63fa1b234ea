"""Classification: one class number per example, one logit per class."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from deploycheck.errors import DeploycheckError
from deploycheck.language.vocabulary import TaskWord
from deploycheck.lazy import np
from deploycheck.stages.answers import is_right

if TYPE_CHECKING:
    import jax

    from deploycheck.stages.tasks import Loss

LOGITS = "logits"
MOST_CLASSES = 1_000_000


def cross_entropy(outputs: Mapping[str, jax.Array], labels: jax.Array) -> jax.Array:
    """Return each example's cross-entropy in nats, ``[batch]``, of logits ``[batch, classes]``."""
    import optax

    losses: jax.Array = optax.softmax_cross_entropy_with_integer_labels(outputs[LOGITS], labels)
    return losses


class Classification:
    """Labels are class numbers from 0, ``[n]``; a model gives ``logits``, ``[n, classes]``."""

    word = TaskWord(
        name="classification",
        losses=("cross_entropy",),
        scores=("accuracy",),
        labels="classes",
        label_slices=True,
        most_accurate=True,
        logits=True,
    )
    outputs = (LOGITS,)
    losses: Mapping[str, Loss] = MappingProxyType({"cross_entropy": cross_entropy})

    def labels(self, raw: np.ndarray) -> np.ndarray:
        """Return integers as int64, in which no metric overflows; refuse others, and negative ones."""
        if raw.ndim != 1 or raw.dtype.kind not in "iu":
            hint = "number the classes from 0, as integers; for other labels, train: {loss: squared_error}"
            raise DeploycheckError(
                f"labels are {raw.dtype} of shape {raw.shape}, expected class numbers of shape [n]",
                hint=hint if raw.ndim == 1 else "give one class number per example: of one-hot labels, their argmax",
            )
        if len(raw) and raw.min() < 0:
            raise DeploycheckError(f"labels hold {raw.min()}, expected class numbers from 0")
        if len(raw) and raw.max() >= MOST_CLASSES:
            what = f"labels go up to {raw.max()}: there can be {MOST_CLASSES:,} classes at most"
            raise DeploycheckError(what, hint="number the classes 0, 1, 2, ... without gaps")
        return raw.astype(np.int64)

    def check(self, shapes: Mapping[str, Any], labels: np.ndarray) -> None:
        """Refuse a model that doesn't give one logit per class."""
        row = int(labels.argmax())
        classes = max(2, int(labels[row]) + 1)  # of one class, every model would be right
        if set(shapes) != {LOGITS}:
            raise DeploycheckError(f"the model gives {', '.join(shapes)}, expected {LOGITS} alone")
        shape = shapes[LOGITS].shape
        if len(shape) != 2 or shape[0] != 2 or shape[1] < classes:
            raise DeploycheckError(
                f"for a batch of 2 the model gives {list(shape)}, expected logits [2, {classes}] or more: the labels "
                f"go up to {int(labels[row])}, in row {row}",
                hint="end the model in one logit per class, without a softmax",
            )

    def scores(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> Mapping[str, float]:
        """Return the accuracy, 0..1; a tie for the highest logit is wrong."""
        return {"accuracy": float(np.mean(is_right(labels, outputs[LOGITS])))}

    def perfect(self, labels: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return a logit of 1 for each label's class and of 0 for the others."""
        return {LOGITS: np.eye(max(2, int(labels.max()) + 1), dtype=np.float32)[labels]}


CLASSIFICATION = Classification()
