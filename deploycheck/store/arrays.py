"""Named arrays as a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def write_arrays(arrays: Mapping[str, Any], file: Path) -> None:
    """Write arrays (NumPy's or JAX's) as safetensors.

    Each is laid out row by row before: safetensors writes the memory as it lies, and a transposed array would
    come back scrambled.
    """
    from safetensors.numpy import save_file

    save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, file)
