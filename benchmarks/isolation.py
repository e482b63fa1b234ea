"""What keeping steps apart costs: a fork for each, a process for each, and putting the state of one process back.

Prints what each takes, and which things that a user's module may set are there again after each. The three are timed
in turn, in one run.

    python benchmarks/isolation.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

import deploycheck.runner.worker  # noqa: F401 - what a worker has imported before it forks

PROCESS = "import deploycheck.runner.worker"


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
    Setting("numpy's random state", lambda: np.random.seed(7), lambda: int(np.random.get_state()[1][0])),
    Setting("Python's random state", lambda: random.seed(7), lambda: hash(random.getstate())),
    Setting("an environment variable", lambda: os.environ.update(MODE="7"), lambda: os.environ.get("MODE")),
    Setting("the import path", lambda: sys.path.insert(0, "/elsewhere"), lambda: sys.path[0]),
    Setting("a function of a library", _replace_relu, lambda: id(jax.nn.relu)),
    Setting("filters of warnings", lambda: warnings.simplefilter("ignore"), lambda: len(warnings.filters)),
    Setting("a logging level", lambda: logging.getLogger("jax").setLevel(50), lambda: logging.getLogger("jax").level),
)


@dataclass(frozen=True)
class State:
    """What a process can put back without knowing what was changed."""

    modules: frozenset[str]
    flags: Mapping[str, Any]
    variables: Mapping[str, str]
    path: tuple[str, ...]
    randoms: tuple[Any, Any]

    @classmethod
    def now(cls) -> State:
        """Return the state of this process."""
        randoms = (random.getstate(), np.random.get_state())
        return cls(frozenset(sys.modules), dict(jax.config.values), dict(os.environ), tuple(sys.path), randoms)

    def put_back(self) -> None:
        """Make the process what it was, as far as that goes."""
        for name in set(sys.modules) - self.modules:
            del sys.modules[name]
        for name, value in self.flags.items():
            if jax.config.values[name] != value:
                jax.config.update(name, value)
        os.environ.clear()
        os.environ.update(self.variables)
        sys.path[:] = self.path
        random.setstate(self.randoms[0])
        np.random.set_state(self.randoms[1])


def fork(work: Callable[[], Any]) -> None:
    """Do something in a fork, and wait for its end."""
    process = os.fork()
    if process == 0:
        work()
        os._exit(0)
    os.waitpid(process, 0)


def start_process() -> None:
    """Start a process that imports what a worker imports."""
    subprocess.run([sys.executable, "-c", PROCESS], check=True)


def seconds(work: Callable[[], Any]) -> float:
    """Return how long something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def is_there_again(setting: Setting, state: State) -> dict[str, bool]:
    """Return whether what a setting changes is as it was, after a fork that changed it and after putting it back."""
    before = setting.read()
    fork(setting.change)
    forked = setting.read() == before
    setting.change()
    state.put_back()
    return {"fork": forked, "put back": setting.read() == before}


def main() -> None:
    """Measure the three, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    state = State.now()
    ways = {"fork": lambda: fork(bool), "process": start_process, "put back": state.put_back}
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, work in ways.items():
            taken[way].append(seconds(work))
    print(json.dumps({way: f"{statistics.median(times):.4f} s" for way, times in taken.items()}))
    for setting in SETTINGS:
        found = is_there_again(setting, state)
        print(f"{setting.name:26}" + "".join(f"{way}: {'yes' if there else 'NO':5}" for way, there in found.items()))


if __name__ == "__main__":
    main()
