"""One process that has imported what others import, which takes seconds: those are forked from it.

It runs none of their code, and starts no backend of JAX, with which a fork may hang.
"""

from __future__ import annotations

import multiprocessing.popen_forkserver  # before any run: what a run imports first, pytester takes away after it

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["deploycheck.runner.worker", "pytest", "sklearn.datasets", "optuna"])
