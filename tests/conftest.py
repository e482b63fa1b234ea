"""How all tests are run.

XLA compiles with few optimisations, which takes a third less time: most tests compile small programs and run them once.
The README's main job, which CI runs too, is compiled as users' jobs are.
"""

from __future__ import annotations

import gc
import os

import pytest

os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Leave what stays, millions of objects, out of garbage collections: each load and each run asks for some."""
    gc.collect()
    gc.freeze()
