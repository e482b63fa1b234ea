"""Statistics of the answers that are not a share of them. Bounds come from resampling the test examples.

Names and definitions are scikit-learn's (scikit-learn.org/stable/modules/model_evaluation.html). Each is computed
from the test split's ``labels``, ``[n]``, and a variant's logits, ``[n, classes]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from deploycheck.checks.metric import MetricFunction, metric
from deploycheck.language.vocabulary import Dimension
from deploycheck.lazy import np
from deploycheck.stages.answers import find_answers, is_right, is_tied
from deploycheck.verdict import Measurement, Resampled

STAGES = ("train", "compress")
BINS = 15
"""Of the calibration error (Guo et al., On Calibration of Modern Neural Networks, ICML 2017)."""
BYTES = 256
HIGHEST_EXPONENT = 700.0
"""The exponential of more overflows a float. A perplexity that high is as bad as any."""


def why_invalid(values: np.ndarray) -> str:
    """Return why nothing can be concluded from a model's outputs; empty where all are finite."""
    return "" if np.isfinite(values).all() else "an output is not a finite number"


def _classification(
    name: str, average: Callable[[np.ndarray], float], summary: str, *, over_classes: bool = True
) -> MetricFunction:
    """Return a metric that is computed from the confusion matrix, ``[classes, classes]``: a row per label.

    The last column counts the examples without an answer.
    """

    def function(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
        classes = max(outputs.shape[1], int(labels.max(initial=0)) + 1) + 1
        answers = find_answers(outputs) % classes  # NO_ANSWER is -1: the last column

        def statistic(rows: np.ndarray) -> float:
            cells = np.bincount(labels[rows] * classes + answers[rows], minlength=classes**2)
            return average(cells.reshape(classes, classes))

        return Measurement(Resampled(statistic, len(labels)))

    function.__doc__ = summary
    declare = metric(
        name,
        dimension=Dimension.PROPORTION,
        direction="higher",
        stages=STAGES,
        sample=Resampled,
        over_classes=over_classes,
    )
    return declare(function)


def _count(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return right answers, answers and labels of each class that has an answer or a label."""
    right, answered, labelled = cells.diagonal(), cells.sum(axis=0), cells.sum(axis=1)
    seen = (answered + labelled) > 0
    return right[seen], answered[seen], labelled[seen]


def _precision_macro(cells: np.ndarray) -> float:
    right, answered, _ = _count(cells)
    return float(np.mean(right / np.maximum(answered, 1)))


def _recall_macro(cells: np.ndarray) -> float:
    right, _, labelled = _count(cells)
    return float(np.mean(right / np.maximum(labelled, 1)))


def _f1_macro(cells: np.ndarray) -> float:
    right, answered, labelled = _count(cells)
    return float(np.mean(2 * right / (answered + labelled)))


def _f1_micro(cells: np.ndarray) -> float:
    right, answered, labelled = _count(cells)
    return float(2 * right.sum() / (answered.sum() + labelled.sum()))


precision_macro = _classification(
    "precision.macro", _precision_macro, "Mean over classes of the share of a class's answers that are right."
)
recall_macro = _classification(
    "recall.macro", _recall_macro, "Mean over classes of the share of a class's examples that are found."
)
f1_macro = _classification("f1.macro", _f1_macro, "Mean over classes of the harmonic mean of precision and recall.")
f1_micro = _classification(
    "f1.micro", _f1_micro, "Harmonic mean of precision and recall over all answers.", over_classes=False
)


@metric("auc", dimension=Dimension.PROPORTION, direction="higher", stages=STAGES, sample=Resampled, over_classes=True)
def auc(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
    """Area under the ROC curve; with more than two classes the mean over one class against the rest.

    Equal scores count half, as the area is defined: a constant model has 50 %.
    """
    from scipy import special

    probabilities = special.softmax(outputs.astype(np.float64), axis=-1)
    classes = [1] if outputs.shape[1] == 2 else list(range(outputs.shape[1]))

    def statistic(rows: np.ndarray) -> float:
        return float(np.mean([_area(probabilities[rows, one], labels[rows] == one) for one in classes]))

    return Measurement(Resampled(statistic, len(labels)), invalid=why_invalid(outputs))


def _area(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the chance that a positive outscores a negative, ties half (Mann and Whitney, 1947).

    Nan where there are none of either.
    """
    found, others = int(positive.sum()), int((~positive).sum())
    if not found or not others:
        return math.nan
    # scipy.stats.rankdata takes five times as long on 20,000 examples, and this is called on every resample
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[positive].sum() - found * (found + 1) / 2) / (found * others))


def _from_loss(labels: np.ndarray, outputs: np.ndarray, scale: Callable[[float], float]) -> Measurement:
    """Return the measurement of ``scale`` of the mean negative log likelihood of the labels, in nats."""
    from scipy import special

    likelihoods = special.log_softmax(outputs.astype(np.float64), axis=-1)
    losses = -np.take_along_axis(likelihoods, labels[:, None], axis=-1)[:, 0]
    sample = Resampled(lambda rows: scale(float(losses[rows].mean())), len(labels))
    return Measurement(sample, invalid=why_invalid(losses))


@metric("log_loss", dimension=Dimension.NUMBER, direction="lower", stages=STAGES, sample=Resampled, lowest=0.0)
def log_loss(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
    """Mean negative log likelihood of the labels, in nats."""
    return _from_loss(labels, outputs, float)


@metric("perplexity", dimension=Dimension.NUMBER, direction="lower", stages=STAGES, sample=Resampled, lowest=1.0)
def perplexity(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
    """Exponential of the log loss: of a language model, whose classes are tokens."""
    return _from_loss(labels, outputs, lambda nats: math.exp(min(nats, HIGHEST_EXPONENT)))


@metric("bits_per_byte", dimension=Dimension.NUMBER, direction="lower", stages=STAGES, sample=Resampled, lowest=0.0)
def bits_per_byte(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
    """Log loss in bits, of a language model whose tokens are bytes."""
    if outputs.shape[1] != BYTES:
        nothing = Resampled(lambda _: math.nan, 0)
        return Measurement(nothing, unfit=f"the model has {outputs.shape[1]} classes: its tokens are not bytes")
    return _from_loss(labels, outputs, lambda nats: nats / math.log(2))


@metric("calibration_error", dimension=Dimension.PROPORTION, direction="lower", stages=STAGES, sample=Resampled)
def calibration_error(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
    """Expected calibration error: how far confidence is from accuracy, over 15 bins of equal width.

    In each bin, ties with the label count as wrong or as right, whichever is further from the confidence.
    """
    from scipy import special

    confidence = special.softmax(outputs.astype(np.float64), axis=-1).max(axis=-1)
    gap = confidence - is_right(labels, outputs)
    gap_with_ties = gap - is_tied(labels, outputs)
    bins = np.minimum((np.nan_to_num(confidence) * BINS).astype(np.int64), BINS - 1)

    def statistic(rows: np.ndarray) -> float:
        gaps = [np.abs(np.bincount(bins[rows], each[rows], BINS)) for each in (gap, gap_with_ties)]
        return float(np.maximum(*gaps).sum() / len(rows))

    return Measurement(Resampled(statistic, len(labels)), invalid=why_invalid(outputs))
