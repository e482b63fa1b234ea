"""How good the answers are: metrics over the test split's labels and a variant's logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploycheck.checks.metric import MetricFunction, metric
from deploycheck.language.vocabulary import Dimension
from deploycheck.verdict import Measurement, Proportion, Repeats, WorstOf, paired

if TYPE_CHECKING:
    import numpy as np

    from deploycheck.stages.training import TrainingReport


STAGES = ("train", "compress")


def _right(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Return which examples are answered right, ``[n]`` of bool. An answer that is no number is wrong."""
    import numpy as np

    finite = np.isfinite(outputs).all(axis=-1)
    right: np.ndarray = (np.argmax(outputs, axis=-1) == labels) & finite
    return right


@metric("accuracy", dimension=Dimension.PROPORTION, direction="higher", stages=STAGES)
def accuracy(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
    """Share of test examples whose highest logit is their label's."""
    return Measurement(Proportion.of(_right(labels, outputs)))


def _top(k: int) -> MetricFunction:
    @metric(f"accuracy.top{k}", dimension=Dimension.PROPORTION, direction="higher", stages=STAGES)
    def top(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
        """Share of test examples whose label is among the k highest logits (scikit-learn's top-k accuracy)."""
        import numpy as np

        own = np.take_along_axis(outputs, labels[:, None], axis=1)
        finite = np.isfinite(outputs).all(axis=-1)
        return Measurement(Proportion.of(((outputs > own).sum(axis=1) < k) & finite))

    return top


top3, top5, top10 = _top(3), _top(5), _top(10)


@metric("accuracy.worst_class", dimension=Dimension.PROPORTION, direction="higher", stages=STAGES, over_classes=True)
def worst_class(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
    """Accuracy in the class where it is lowest."""
    import numpy as np

    right = _right(labels, outputs)
    slices = {str(label): Proportion.of(right[labels == label]) for label in np.unique(labels)}
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
def accuracy_drop(labels: np.ndarray, outputs: np.ndarray, reference_outputs: np.ndarray) -> Measurement:
    """Accuracy of the trained model (or the baseline) less that of the variant, on the same test examples."""
    pairs = paired(_right(labels, reference_outputs), _right(labels, outputs))
    return Measurement(pairs, note=f"{pairs.lost} answers turned wrong and {pairs.gained} right, of {len(labels)}")


@metric("agreement", dimension=Dimension.PROPORTION, direction="higher", stages=["compress"])
def agreement(outputs: np.ndarray, reference_outputs: np.ndarray) -> Measurement:
    """Share of test examples that the trained model (or the baseline) gives the same answer, right or wrong."""
    import numpy as np

    finite = np.isfinite(outputs).all(axis=-1) & np.isfinite(reference_outputs).all(axis=-1)
    return Measurement(Proportion.of((outputs.argmax(axis=-1) == reference_outputs.argmax(axis=-1)) & finite))


@metric("accuracy.over_seeds", dimension=Dimension.PROPORTION, direction="higher", stages=["train"], target="class")
def over_seeds(training: TrainingReport) -> Measurement:
    """Mean validation accuracy over the trainings, one a seed: what another training would come to."""
    found = tuple(run.validation.validation_accuracy or 0.0 for run in training.seeds)
    return Measurement(Repeats(found), note=f"{len(found)} seeds, {min(found):.1%} to {max(found):.1%}")
