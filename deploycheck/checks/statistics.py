"""Statistics of the answers that are no simple share of them: decided by resampling the test examples.

Names and definitions are scikit-learn's (scikit-learn.org/stable/modules/model_evaluation.html). Each is computed
from the test split's ``labels``, ``[n]``, and a variant's logits, ``[n, classes]``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deploycheck.checks.metric import MetricFunction, metric
from deploycheck.language.vocabulary import Dimension
from deploycheck.verdict import Measurement, Resampled

if TYPE_CHECKING:
    import numpy as np

STAGES = ("train", "compress")
BINS = 15
"""Of the calibration error (Guo et al., On Calibration of Modern Neural Networks, ICML 2017)."""
BYTES = 256
HIGHEST_EXPONENT = 700.0
"""A perplexity past its exponential is no float any more, and as bad as any."""
BAD = "an output is no number"


def _of_confusion(average: Callable[[np.ndarray], float]) -> Callable[[np.ndarray, np.ndarray], Measurement]:
    """Return a measure from the confusion matrix, ``[classes, classes]``: a row a label, a column an answer."""

    def measure(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
        import numpy as np

        finite = np.isfinite(outputs).all(axis=-1)
        classes = max(outputs.shape[1], int(labels.max(initial=0)) + 1) + 1
        answers = np.where(finite, outputs.argmax(axis=-1), classes - 1)  # no number is no class

        def statistic(rows: np.ndarray) -> float:
            cells = np.bincount(labels[rows] * classes + answers[rows], minlength=classes**2)
            return average(cells.reshape(classes, classes))

        return Measurement(Resampled(statistic, len(labels)))

    return measure


def _parts(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return right answers, answers and labels of each class that has any of the latter two."""
    right, answered, labelled = cells.diagonal(), cells.sum(axis=0), cells.sum(axis=1)
    seen = (answered + labelled) > 0
    return right[seen], answered[seen], labelled[seen]


def _precision_macro(cells: np.ndarray) -> float:
    import numpy as np

    right, answered, _ = _parts(cells)
    return float(np.mean(right / np.maximum(answered, 1)))


def _recall_macro(cells: np.ndarray) -> float:
    import numpy as np

    right, _, labelled = _parts(cells)
    return float(np.mean(right / np.maximum(labelled, 1)))


def _f1_macro(cells: np.ndarray) -> float:
    import numpy as np

    right, answered, labelled = _parts(cells)
    return float(np.mean(2 * right / (answered + labelled)))


def _f1_micro(cells: np.ndarray) -> float:
    right, answered, labelled = _parts(cells)
    return float(2 * right.sum() / (answered.sum() + labelled.sum()))


def _share(name: str, text: str, average: Callable[[np.ndarray], float]) -> MetricFunction:
    measure = _of_confusion(average)

    def function(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
        return measure(labels, outputs)

    function.__doc__ = text
    declare = metric(
        name, dimension=Dimension.PROPORTION, direction="higher", stages=STAGES, over_classes=name.endswith("macro")
    )
    return declare(function)


precision_macro = _share("precision.macro", "Mean over classes of the share of answers that hit.", _precision_macro)
recall_macro = _share("recall.macro", "Mean over classes of the share of examples that are found.", _recall_macro)
f1_macro = _share("f1.macro", "Mean over classes of the harmonic mean of precision and recall.", _f1_macro)
f1_micro = _share("f1.micro", "Harmonic mean of precision and recall over all answers.", _f1_micro)


@metric("auc", dimension=Dimension.PROPORTION, direction="higher", stages=STAGES, over_classes=True)
def auc(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
    """Area under the ROC curve; with more than two classes the mean over one class against the rest."""
    import numpy as np

    probabilities = _softmax(outputs)
    classes = [1] if outputs.shape[1] == 2 else list(range(outputs.shape[1]))

    def statistic(rows: np.ndarray) -> float:
        return float(np.mean([_area(probabilities[rows, one], labels[rows] == one) for one in classes]))

    return Measurement(Resampled(statistic, len(labels)), invalid="" if np.isfinite(outputs).all() else BAD)


def _area(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the chance that a positive outscores a negative, ties half (Mann and Whitney, 1947), or nan."""
    import numpy as np

    found, others = int(positive.sum()), int((~positive).sum())
    if not found or not others:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[positive].sum() - found * (found + 1) / 2) / (found * others))


def _softmax(outputs: np.ndarray) -> np.ndarray:
    import numpy as np

    powers = np.exp(outputs - outputs.max(axis=-1, keepdims=True), dtype=np.float64)
    probabilities: np.ndarray = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def _losses(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Return each example's negative log likelihood in nats, ``[n]``."""
    import numpy as np

    shifted = outputs.astype(np.float64) - outputs.max(axis=-1, keepdims=True)
    losses: np.ndarray = (
        np.log(np.exp(shifted).sum(axis=-1)) - np.take_along_axis(shifted, labels[:, None], axis=1)[:, 0]
    )
    return losses


def _of_loss(labels: np.ndarray, outputs: np.ndarray, scale: Callable[[float], float]) -> Measurement:
    import numpy as np

    losses = _losses(labels, outputs)
    bad = "" if np.isfinite(losses).all() else BAD
    return Measurement(Resampled(lambda rows: scale(float(losses[rows].mean())), len(labels)), invalid=bad)


@metric("log_loss", dimension=Dimension.NUMBER, direction="lower", stages=STAGES)
def log_loss(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
    """Mean negative log likelihood of the labels, in nats."""
    return _of_loss(labels, outputs, float)


@metric("perplexity", dimension=Dimension.NUMBER, direction="lower", stages=STAGES)
def perplexity(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
    """Exponential of the log loss: of a language model, whose classes are tokens."""
    import math

    return _of_loss(labels, outputs, lambda nats: math.exp(min(nats, HIGHEST_EXPONENT)))


@metric("bits_per_byte", dimension=Dimension.NUMBER, direction="lower", stages=STAGES)
def bits_per_byte(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
    """Log loss in bits, of a language model whose tokens are bytes."""
    import math

    if outputs.shape[1] != BYTES:
        empty = Resampled(lambda _: math.nan, 0)
        return Measurement(empty, invalid=f"the model has {outputs.shape[1]} classes: its tokens are no bytes")
    return _of_loss(labels, outputs, lambda nats: nats / math.log(2))


@metric("calibration_error", dimension=Dimension.PROPORTION, direction="lower", stages=STAGES)
def calibration_error(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
    """Expected calibration error: how far confidence lies from accuracy, over 15 bins of equal width."""
    import numpy as np

    probabilities = _softmax(outputs)
    confidence = probabilities.max(axis=-1)
    gap = confidence - (outputs.argmax(axis=-1) == labels)
    bins = np.minimum((np.nan_to_num(confidence) * BINS).astype(np.int64), BINS - 1)

    def statistic(rows: np.ndarray) -> float:
        return float(np.abs(np.bincount(bins[rows], gap[rows], BINS)).sum() / len(rows))

    return Measurement(Resampled(statistic, len(labels)), invalid="" if np.isfinite(outputs).all() else BAD)
