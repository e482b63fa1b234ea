"""How far answers that are numbers lie from the truth: decided by resampling the test examples.

Definitions are scikit-learn's (scikit-learn.org/stable/modules/model_evaluation.html#regression-metrics). Each is
computed from the test split's ``labels``, ``[n]``, and a variant's ``outputs``, ``[n, 1]``, in the labels' unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from deploycheck.checks.metric import metric
from deploycheck.checks.statistics import BAD, STAGES
from deploycheck.language.vocabulary import Dimension
from deploycheck.verdict import Measurement, Resampled

if TYPE_CHECKING:
    import numpy as np


def _measured(outputs: np.ndarray, statistic: Callable[[np.ndarray], float]) -> Measurement:
    import numpy as np

    return Measurement(Resampled(statistic, len(outputs)), invalid="" if np.isfinite(outputs).all() else BAD)


def _errors(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Return each example's answer less the truth, ``[n]``."""
    errors: np.ndarray = outputs[:, 0].astype("float64") - labels
    return errors


@metric("rmse", dimension=Dimension.NUMBER, direction="lower", stages=STAGES, target="number")
def rmse(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
    """Root of the mean squared error."""
    squares = _errors(labels, outputs) ** 2
    return _measured(outputs, lambda rows: math.sqrt(squares[rows].mean()))


@metric("mae", dimension=Dimension.NUMBER, direction="lower", stages=STAGES, target="number")
def mae(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
    """Mean absolute error."""
    sizes = abs(_errors(labels, outputs))
    return _measured(outputs, lambda rows: float(sizes[rows].mean()))


@metric("r2", dimension=Dimension.NUMBER, direction="higher", stages=STAGES, target="number")
def r2(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
    """Share of the labels' variance that is explained: 0 for always answering their mean, 1 without error."""
    squares, truth = _errors(labels, outputs) ** 2, labels.astype("float64")

    def statistic(rows: np.ndarray) -> float:
        spread = truth[rows].var()
        return float(1 - squares[rows].mean() / spread) if spread else math.nan

    return _measured(outputs, statistic)
