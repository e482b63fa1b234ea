"""Metrics that the specs define themselves."""

from __future__ import annotations

import numpy as np


def overconfident(labels: np.ndarray, outputs: np.ndarray, sure: float) -> np.ndarray:
    """Return which examples, ``[n]``, are answered wrong with a probability over ``sure``; ``outputs`` are logits."""
    powers = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
    probability = powers.max(axis=-1) / powers.sum(axis=-1)
    return (outputs.argmax(axis=-1) != labels) & (probability > sure)


def missed(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Return which examples, ``[n]``, are of class 1 and are answered with class 0."""
    return (labels == 1) & (outputs[:, 1] <= outputs[:, 0])


def sensitivity(labels: np.ndarray, outputs: np.ndarray, specificity: float) -> float:
    """Return the share of class 1 that is found where ``specificity`` of class 0 is left alone."""
    scores = outputs[:, 1] - outputs[:, 0]
    limit = np.quantile(scores[labels == 0], specificity, method="higher")
    return float((scores[labels == 1] > limit).mean())
