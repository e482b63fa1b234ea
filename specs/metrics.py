"""Metrics that the specs define themselves."""

from __future__ import annotations

import numpy as np


def overconfident(labels: np.ndarray, outputs: np.ndarray, sure: float) -> np.ndarray:
    """Return which examples, ``[n]``, are answered wrong with a probability over ``sure``; ``outputs`` are logits."""
    powers = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
    probability = powers.max(axis=-1) / powers.sum(axis=-1)
    return (outputs.argmax(axis=-1) != labels) & (probability > sure)
