"""What keeping specs apart costs: a process for each spec's code, beside putting the state of one process back.

Prints what each takes, and what each leaves behind of what a user's module may set. The two are timed in turn, in one
run.

    python benchmarks/isolation.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from deploycheck.runner.worker import ProcessState

WORKER = "import deploycheck.runner.worker"
BARE = "pass"


@dataclass(frozen=True)
class Setting:
    """Something that a module may set: how it is set, and what is then read."""

    name: str
    change: Callable[[], Any]
    read: Callable[[], Any]


def _replace_relu() -> None:
    jax.nn.relu = lambda x: x


SETTINGS = (
    Setting("a flag of JAX", lambda: jax.config.update("jax_enable_x64", True), lambda: jax.config.jax_enable_x64),
    Setting("numpy's random state", lambda: np.random.seed(7), lambda: np.random.get_state()[1][0]),
    Setting("Python's random state", lambda: random.seed(7), lambda: hash(random.getstate())),
    Setting("an environment variable", lambda: os.environ.update(MODE="7"), lambda: os.environ.get("MODE")),
    Setting("the import path", lambda: sys.path.insert(0, "/elsewhere"), lambda: sys.path[0]),
    Setting("a function of a library", _replace_relu, lambda: jax.nn.relu),
    Setting("filters of warnings", lambda: warnings.simplefilter("ignore"), lambda: len(warnings.filters)),
    Setting("a logging level", lambda: logging.getLogger("jax").setLevel(50), lambda: logging.getLogger("jax").level),
)


def seconds(command: str) -> float:
    """Return how long a whole process takes."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", command], check=True)
    return time.perf_counter() - began


def main() -> None:
    """Measure both, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    state = ProcessState.now()
    state.restore()
    started, bare, restored = [], [], []
    for _ in range(rounds):
        started.append(seconds(WORKER))
        bare.append(seconds(BARE))
        began = time.perf_counter()
        state.restore()
        restored.append(time.perf_counter() - began)
    print(f"a process        {statistics.median(started):8.3f} s (an empty one {statistics.median(bare):.3f} s)")
    print(f"putting it back  {statistics.median(restored):8.3f} s")
    for setting in SETTINGS:
        before = setting.read()
        setting.change()
        state.restore()
        left = "put back" if setting.read() == before else "left behind"
        print(f"{setting.name:26}{left:14}a new process has none of it")


if __name__ == "__main__":
    main()
