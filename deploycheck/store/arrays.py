"""Named arrays as a file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")


def write_arrays(arrays: Mapping[str, Any], file: Path, metadata: dict[str, str] | None = None) -> None:
    """Write arrays (NumPy's or JAX's) as safetensors.

    Each is first copied row by row: safetensors writes the memory in its own order, and a transposed array would
    come back scrambled. Raises ``OSError`` where the system refuses to write.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, file, metadata)
    except SafetensorError as error:
        refused = _SYSTEM_ERROR.search(str(error))  # it has the number in its text alone
        if refused is None:
            raise
        number = int(refused[1])
        raise OSError(number, os.strerror(number), str(file)) from error
