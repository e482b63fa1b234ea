"""Data of the example specs: real sets that ship inside packages."""

from __future__ import annotations

import numpy as np


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Load 1,797 handwritten digits: images ``[n, 8, 8, 1]`` of grey levels 0..16, and their classes ``[n]``.

    Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
    """
    from sklearn.datasets import load_digits

    loaded = load_digits()
    return loaded.images[..., None].astype(np.float32), loaded.target.astype(np.int64)
