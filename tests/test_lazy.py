from __future__ import annotations

import subprocess
import sys

import numpy

from deploycheck.lazy import np

FIRST_USE = """
import sys
from deploycheck.lazy import np
assert "numpy" not in sys.modules
import numpy._core  # what jaxlib does: the first use of numpy is of a submodule
import numpy.testing
assert np.arange(3).sum() == 3
assert np.ndarray is numpy.ndarray
"""


def test_it_is_the_real_library() -> None:
    assert np.ndarray is numpy.ndarray
    assert np.linalg is numpy.linalg


def test_importing_it_imports_nothing_and_harms_no_one_who_imports_a_part_first() -> None:
    subprocess.run([sys.executable, "-c", FIRST_USE], check=True)
