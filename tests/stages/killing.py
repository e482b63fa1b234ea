"""Run a training in a process that ends itself in the middle of it, as a machine that fails would end it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from typing import Any

import jax

from tests.forks import FORKS

LONGEST = 300
"""Seconds after which a process that was not killed is given up."""


def kill_at(epoch: int) -> Callable[[str], None]:
    """Return a function for lines of progress that kills its own process when this epoch is reported."""

    def report(line: str) -> None:
        if f"epoch {epoch}/" in line:
            os.kill(os.getpid(), signal.SIGKILL)

    return report


def run_until_killed(target: Callable[..., None], *arguments: Any) -> None:
    """Call the function in a process of its own, and check that the process was killed.

    What JAX compiles there is shared as it is here.
    """
    shared = {name: value for name, value in jax.config.values.items() if "_cache_" in name}
    child = FORKS.Process(target=_call, args=(shared, target, arguments))
    child.start()
    child.join(LONGEST)
    assert child.exitcode == -signal.SIGKILL


def _call(shared: Mapping[str, Any], target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    for name, value in shared.items():
        jax.config.update(name, value)
    target(*arguments)
