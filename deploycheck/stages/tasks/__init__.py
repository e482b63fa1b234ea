"""Tasks, one file each: what a model's outputs and labels are, and the losses and scores of a model.

``train.loss`` names a loss; the task that has it is the spec's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from deploycheck.language.vocabulary import TaskWord

if TYPE_CHECKING:
    import jax
    import numpy as np

Loss = Callable[[Mapping[str, "jax.Array"], Any], "jax.Array"]
"""``loss(outputs, labels)`` gives each example's loss, ``[batch]``; it is traced by JAX.

A method that trains may give its own loss other targets than the labels: a tree of arrays, each ``[batch, ...]``.
"""


@runtime_checkable
class Task(Protocol):
    """A task. ``word`` is what the language knows of it; ``losses`` has the losses that ``word.losses`` names.

    ``outputs`` are the names of what a model gives; metrics are given the first of them as ``outputs``.
    """

    word: TaskWord
    losses: Mapping[str, Loss]

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what a model gives."""
        ...

    def labels(self, raw: np.ndarray) -> np.ndarray:
        """Return a loader's labels as this task has them, ``[n, ...]``; raise ``DeploycheckError`` for others."""
        ...

    def check(self, shapes: Mapping[str, Any], labels: np.ndarray) -> None:
        """Raise ``DeploycheckError`` where a model can't be trained on these labels, or measured on them.

        ``shapes`` are the shapes and dtypes, by name, of what it gives for a batch of 2; ``labels`` are those of one
        split, at least one.
        """
        ...

    def scores(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> Mapping[str, float]:
        """Return what an epoch reports on validation, by the names in ``word.scores``; higher is better."""
        ...

    def perfect(self, labels: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return what a model without error would give for these labels."""
        ...
