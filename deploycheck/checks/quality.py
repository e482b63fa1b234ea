"""How good the answers are: metrics of the test split's labels, ``[n]``, and a variant's logits, ``[n, classes]``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from deploycheck.checks.metric import MetricFunction, metric
from deploycheck.language.vocabulary import Dimension
from deploycheck.lazy import np
from deploycheck.stages.answers import NO_ANSWER, find_answers, is_among_highest, is_right
from deploycheck.verdict import Measurement, Paired, Proportion, Repeats, WorstOf, paired

if TYPE_CHECKING:
    from deploycheck.stages.training import TrainingReport


STAGES = ("train", "compress")


@metric("accuracy", dimension=Dimension.PROPORTION, direction="higher", stages=STAGES, sample=Proportion)
def accuracy(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
    """Share of test examples whose highest logit is their label's; a tie is wrong."""
    return Measurement(Proportion.of(is_right(labels, outputs)))


def _top(k: int) -> MetricFunction:
    @metric(f"accuracy.top{k}", dimension=Dimension.PROPORTION, direction="higher", stages=STAGES, sample=Proportion)
    def top(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
        """Share of test examples whose label is among the k highest logits; ties rank before the label."""
        classes = outputs.shape[-1]
        why = f"the model has {classes} classes: every label is among the {k} highest logits" if classes <= k else ""
        return Measurement(Proportion.of(is_among_highest(labels, outputs, k)), unfit=why)

    return top


top3, top5, top10 = _top(3), _top(5), _top(10)


@metric(
    "accuracy.worst_class",
    dimension=Dimension.PROPORTION,
    direction="higher",
    stages=STAGES,
    sample=WorstOf,
    over_classes=True,
)
def worst_class(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
    """Accuracy in the class where it is lowest."""
    right = is_right(labels, outputs)
    slices = {str(label): Proportion.of(right[labels == label]) for label in np.unique(labels)}
    worst = min(slices, key=lambda name: slices[name].successes / slices[name].total)
    part = slices[worst]
    return Measurement(WorstOf(slices), note=f"class {worst}: {part.successes} of {part.total} right")


@metric(
    "learned",
    dimension=Dimension.PROPORTION,
    direction="higher",
    stages=["train"],
    sample=Proportion,
    relations=frozenset({"over majority"}),
    lowest=-math.inf,
)
def learned(labels: np.ndarray, outputs: np.ndarray, training: TrainingReport) -> Measurement:
    """Share of the gap between always answering the most frequent class and no error that training closed.

    0 % is a model that learned nothing, 100 % one without error: ``(accuracy - m) / (1 - m)`` with ``m`` the
    share of the test split's most frequent class (a skill score; Murphy, Weather and Forecasting 3, 1988).
    """
    right, total = int(is_right(labels, outputs).sum()), len(labels)
    majority = int(np.bincount(labels).max()) / total
    if majority == 1:
        return Measurement(Proportion(right, total), unfit="every test label is the same: nothing to learn")
    gap = 1 - majority
    epochs = training.deployed.epochs
    note = (
        f"accuracy {right / total:.1%} against {majority:.1%} for the majority class; "
        f"training loss {epochs[0].loss:.4f} in the first epoch, {epochs[-1].loss:.4f} in the last of {len(epochs)}"
    )
    sample = Proportion(right, total, offset=-majority / gap, scale=1 / gap)
    return Measurement(sample, note=note, reach=(-majority / gap, 1.0))


@metric("accuracy_drop", dimension=Dimension.DIFFERENCE, direction="lower", stages=["compress"], sample=Paired)
def accuracy_drop(labels: np.ndarray, outputs: np.ndarray, reference_outputs: np.ndarray) -> Measurement:
    """Accuracy of the trained model (or the baseline) less that of the variant, on the same test examples."""
    pairs = paired(is_right(labels, reference_outputs), is_right(labels, outputs))
    note = f"{pairs.lost} answers turned wrong and {pairs.gained} right, of {len(labels)}"
    before = pairs.right / len(labels) if len(labels) else 1.0
    return Measurement(pairs, note=note, reach=(before - 1, before))


@metric("agreement", dimension=Dimension.PROPORTION, direction="higher", stages=["compress"], sample=Proportion)
def agreement(outputs: np.ndarray, reference_outputs: np.ndarray) -> Measurement:
    """Share of test examples that get the same answer as from the trained model (or the baseline), right or wrong.

    An example without one highest logit in either is not such an example.
    """
    answers = find_answers(outputs)
    return Measurement(Proportion.of((answers == find_answers(reference_outputs)) & (answers != NO_ANSWER)))


@metric(
    "accuracy.over_seeds",
    dimension=Dimension.PROPORTION,
    direction="higher",
    stages=["train"],
    sample=Repeats,
    task="classification",
)
def over_seeds(training: TrainingReport) -> Measurement:
    """Mean validation accuracy over the trainings, one per seed: what to expect of training again."""
    found = tuple(run.kept_epoch.scores.get("accuracy", 0.0) for run in training.seeds)
    return Measurement(Repeats(found), note=f"{len(found)} seeds, {min(found):.1%} to {max(found):.1%}")
