"""Run a training in a process that ends itself in the middle of it, as a machine that fails would end it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

LONGEST = 300
"""Seconds after which a process that was not killed is given up."""


def kill_at(epoch: int) -> Callable[[str], None]:
    """Return a function for lines of progress that kills its own process when this epoch is reported."""

    def report(line: str) -> None:
        if f"epoch {epoch}/" in line:
            os.kill(os.getpid(), signal.SIGKILL)

    return report


def run_until_killed(target: Callable[..., None], *arguments: Any) -> None:
    """Call the function in a process of its own, and check that the process was killed."""
    child = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    child.start()
    child.join(LONGEST)
    assert child.exitcode == -signal.SIGKILL
