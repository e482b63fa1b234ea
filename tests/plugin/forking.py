"""Workers forked from one process that has imported what each of them imports, which takes seconds.

A worker is otherwise the same: a process of its own, in its own session, with its own environment and folder. The
worker as users have it, which imports for itself, is tested in ``tests/runner``, and wherever pytest is a subprocess.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

from tests.forks import FORKS


def _work(pipes: Sequence[Connection], folder: Path, environment: Mapping[str, str]) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, pipe in enumerate(pipes):
        os.dup2(pipe.fileno(), number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", buffering=1), open(2, "w", buffering=1)  # noqa: SIM115
    from deploycheck.runner.worker import main

    main()


class ForkedWorker:
    """What ``subprocess.Popen`` gives of a worker."""

    def __init__(self, _: Sequence[str], *, stderr: IO[bytes], cwd: Path, env: Mapping[str, str], **__: Any) -> None:
        (tasks, give), (take, answers) = os.pipe(), os.pipe()
        pipes = [Connection(number) for number in (tasks, answers, os.dup(stderr.fileno()))]  # what can be sent
        self._process = FORKS.Process(target=_work, args=(pipes, cwd, dict(env)))
        self._process.start()
        for pipe in pipes:
            pipe.close()
        self.stdin, self.stdout = os.fdopen(give, "w"), os.fdopen(take, "r")

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("worker", timeout or 0)
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()


FORKING = SimpleNamespace(Popen=ForkedWorker, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired)
"""What the parent's side of a worker uses of ``subprocess``."""
