"""How all tests are run.

XLA compiles with few optimisations, each program in one piece and by the older of its two generators of code, which
takes a quarter of the time: most tests compile small programs and run them once. The README's main job, which CI runs
too, is compiled as users' jobs are.
"""

from __future__ import annotations

import gc
import os

import pytest

os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Leave what stays, millions of objects, out of garbage collections: each load and each run asks for some."""
    gc.collect()
    gc.freeze()
