"""How good the answers are: metrics over the test split's labels and a variant's logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploycheck.checks.metric import metric
from deploycheck.language.vocabulary import Dimension
from deploycheck.verdict import Measurement, Paired, Proportion, WorstOf

if TYPE_CHECKING:
    import numpy as np

    from deploycheck.stages.training import TrainingReport


def _right(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Return which examples are answered right, ``[n]`` of bool. An answer that is no number is wrong."""
    import numpy as np

    finite = np.isfinite(outputs).all(axis=-1)
    right: np.ndarray = (np.argmax(outputs, axis=-1) == labels) & finite
    return right


@metric("accuracy", dimension=Dimension.PROPORTION, direction="higher", stages=["train", "compress"])
def accuracy(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
    """Share of test examples whose highest logit is their label's."""
    return Measurement(Proportion(int(_right(labels, outputs).sum()), len(labels)))


@metric("accuracy.worst_class", dimension=Dimension.PROPORTION, direction="higher", stages=["train", "compress"])
def worst_class(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
    """Accuracy in the class where it is lowest."""
    import numpy as np

    right = _right(labels, outputs)
    slices = {
        str(label): Proportion(int(right[labels == label].sum()), int((labels == label).sum()))
        for label in np.unique(labels)
    }
    worst = min(slices, key=lambda name: slices[name].successes / slices[name].total)
    part = slices[worst]
    return Measurement(WorstOf(slices), note=f"class {worst}: {part.successes} of {part.total} right")


@metric(
    "learned",
    dimension=Dimension.PROPORTION,
    direction="higher",
    stages=["train"],
    relations=frozenset({"over majority"}),
)
def learned(labels: np.ndarray, outputs: np.ndarray, training: TrainingReport) -> Measurement:
    """Share of the gap between always naming the majority class and never erring that was closed.

    0 % is a model that learned nothing, 100 % one without error: ``(accuracy - m) / (1 - m)`` with ``m`` the
    share of the test split's most frequent class (a skill score; Murphy, Weather and Forecasting 3, 1988).
    """
    import numpy as np

    right, total = int(_right(labels, outputs).sum()), len(labels)
    majority = int(np.bincount(labels).max()) / total
    if majority == 1:
        return Measurement(Proportion(right, total), invalid="every test label is the same: nothing to learn")
    gap = 1 - majority
    epochs = training.deployed.epochs
    note = (
        f"accuracy {right / total:.1%} against {majority:.1%} for the majority class; "
        f"training loss {epochs[0].loss:.4f} in the first epoch, {epochs[-1].loss:.4f} in the last of {len(epochs)}"
    )
    return Measurement(Proportion(right, total, offset=-majority / gap, scale=1 / gap), note=note)


@metric("accuracy_drop", dimension=Dimension.DIFFERENCE, direction="lower", stages=["compress"])
def accuracy_drop(labels: np.ndarray, outputs: np.ndarray, trained_outputs: np.ndarray) -> Measurement:
    """Accuracy of the trained model less that of the variant, on the same test examples."""
    before, after = _right(labels, trained_outputs), _right(labels, outputs)
    lost, gained = int((before & ~after).sum()), int((~before & after).sum())
    note = f"{lost} answers turned wrong and {gained} right, of {len(labels)}"
    return Measurement(Paired(lost, gained, len(labels)), note=note)
