"""Examples whose one input is their row's number, and the shares that they are split into."""

from __future__ import annotations

import numpy as np

from deploycheck.stages.examples import Examples

FRACTIONS = {"train": 0.6, "validation": 0.2, "test": 0.2}


def numbered(labels: np.ndarray) -> Examples:
    return Examples({"x": np.arange(len(labels), dtype=np.float32)[:, None]}, labels)
