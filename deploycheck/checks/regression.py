"""How far answers that are numbers are from the truth. Bounds come from resampling the test examples.

Definitions are scikit-learn's (scikit-learn.org/stable/modules/model_evaluation.html#regression-metrics). Each is
computed from the test split's ``labels``, ``[n]``, and a variant's ``outputs``, ``[n, 1]``, in the labels' unit.
"""

from __future__ import annotations

import functools
import math

from deploycheck.checks.metric import metric
from deploycheck.checks.statistics import STAGES, why_invalid
from deploycheck.language.vocabulary import Dimension
from deploycheck.lazy import np
from deploycheck.verdict import Measurement, Resampled

_declare = functools.partial(metric, dimension=Dimension.NUMBER, stages=STAGES, sample=Resampled, task="regression")


def _errors(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Return each example's answer less the truth, ``[n]`` of float64."""
    errors: np.ndarray = outputs[:, 0].astype(np.float64) - labels
    return errors


@_declare("rmse", direction="lower", lowest=0.0)
def rmse(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
    """Root of the mean squared error."""
    squares = _errors(labels, outputs) ** 2
    sample = Resampled(lambda rows: math.sqrt(squares[rows].mean()), len(squares))
    return Measurement(sample, invalid=why_invalid(outputs))


@_declare("mae", direction="lower", lowest=0.0)
def mae(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
    """Mean absolute error."""
    sizes = np.abs(_errors(labels, outputs))
    sample = Resampled(lambda rows: float(sizes[rows].mean()), len(sizes))
    return Measurement(sample, invalid=why_invalid(outputs))


@_declare("r2", direction="higher", highest=1.0)
def r2(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
    """Share of the labels' variance that is explained: 0 for always answering their mean, 1 without error."""
    squares, truth = _errors(labels, outputs) ** 2, labels.astype(np.float64)

    def statistic(rows: np.ndarray) -> float:
        variance = truth[rows].var()
        return float(1 - squares[rows].mean() / variance) if variance else math.nan

    return Measurement(Resampled(statistic, len(squares)), invalid=why_invalid(outputs))
