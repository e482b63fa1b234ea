"""Regression: one number per example."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from deploycheck.errors import DeploycheckError
from deploycheck.language.vocabulary import TaskWord
from deploycheck.lazy import np

if TYPE_CHECKING:
    import jax

    from deploycheck.stages.tasks import Loss

PREDICTION = "prediction"


def squared_error(outputs: Mapping[str, jax.Array], labels: jax.Array) -> jax.Array:
    """Return each example's squared error, ``[batch]``, of predictions ``[batch, 1]``."""
    import optax

    losses: jax.Array = optax.squared_error(outputs[PREDICTION][:, 0], labels)
    return losses


class Regression:
    """Labels are finite numbers, ``[n]``, kept as float32; a model gives ``prediction``, ``[n, 1]``."""

    word = TaskWord(
        name="regression",
        losses=("squared_error",),
        scores=(),
        labels="numbers",
        label_slices=False,
        most_accurate=False,
    )
    outputs = (PREDICTION,)
    losses: Mapping[str, Loss] = MappingProxyType({"squared_error": squared_error})

    def labels(self, raw: np.ndarray) -> np.ndarray:
        """Return the labels as float32; refuse those that aren't numbers, or aren't finite as float32."""
        if raw.ndim != 1 or raw.dtype.kind not in "iuf":
            raise DeploycheckError(f"labels are {raw.dtype} of shape {raw.shape}, expected numbers of shape [n]")
        with np.errstate(over="ignore"):
            labels = raw.astype(np.float32)
        if not np.isfinite(labels).all():
            count = int((~np.isfinite(labels)).sum())
            what = f"{count} of {len(labels)} labels are not finite as float32"
            raise DeploycheckError(what, hint="leave those examples out, or scale the labels")
        return labels

    def check(self, shapes: Mapping[str, Any], labels: np.ndarray) -> None:
        """Refuse a model that doesn't give one number per example."""
        del labels
        if set(shapes) != {PREDICTION}:
            raise DeploycheckError(f"the model gives {', '.join(shapes)}, expected {PREDICTION} alone")
        shape = shapes[PREDICTION].shape
        if shape != (2, 1):
            what = f"for a batch of 2 the model gives {list(shape)}, expected a number for each: [2, 1]"
            raise DeploycheckError(what, hint="end the model in one output")

    def scores(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> Mapping[str, float]:
        """Return nothing: of a regression only the loss is reported."""
        del outputs, labels
        return {}

    def perfect(self, labels: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the labels themselves."""
        return {PREDICTION: labels[:, None]}


REGRESSION = Regression()
