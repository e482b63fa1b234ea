"""The parent's side of a worker: start it, give it tasks, show its progress, and end it in any case."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from deploycheck.errors import DeploycheckError
from deploycheck.runner.tasks import AlreadyFailed, Task


class CodeFailed(DeploycheckError):
    """A step's work raised; ``trace`` is the traceback from where the user's code began, if that raised."""

    def __init__(self, what: str, *, where: str, hint: str, trace: str) -> None:
        super().__init__(what, where=where, hint=hint)
        self.trace = trace


class WorkerSpent(Exception):
    """The user's code changed something that can't be put back in that process: another one is needed."""


class Worker:
    """A process that does the steps of one spec file. It never outlives this one."""

    def __init__(self, root: Path, cache: Path, log: Path) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-m", "deploycheck.runner.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                start_new_session=True,  # Ctrl-C is for the parent, which ends this one
            )
        self._shown = log.stat().st_size
        first = {"root": str(root), "cache": str(cache), "path": [entry or os.getcwd() for entry in sys.path]}  # noqa: PTH109
        self._send(json.dumps(first))

    def do(self, task: Task, progress: Callable[[str], None]) -> bool:
        """Have a task done; return whether another process had done it meanwhile.

        Raises ``CodeFailed`` where its work raised, ``AlreadyFailed`` where it has failed in another process,
        ``WorkerSpent`` where nothing was done and another worker is needed.
        """
        self._send(task.to_json())
        try:
            answer = self._answer(progress)
        finally:
            self._show_output()
        if "spent" in answer:
            raise WorkerSpent
        if "already_failed" in answer:
            raise AlreadyFailed(answer["already_failed"])
        if "failed" in answer:
            raise CodeFailed(**answer["failed"])
        return bool(answer["done"]["reused"])

    def _answer(self, progress: Callable[[str], None]) -> dict[str, Any]:
        if self._process.stdout is None:
            raise DeploycheckError("the worker has no output")
        for line in self._process.stdout:
            answer: dict[str, Any] = json.loads(line)
            if "progress" not in answer:
                return answer
            progress(answer["progress"])
        raise self._died()

    def _died(self) -> DeploycheckError:
        code = self._process.wait()
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        last = self._output().decode(errors="replace").strip().splitlines()[-5:]
        said = "; it last said:\n    " + "\n    ".join(last) if last else ""
        hint = "signal 9 usually means that the machine ran out of memory" if code == -9 else ""
        return DeploycheckError(f"the process that runs the spec's code ended with {ended}{said}", hint=hint)

    def _send(self, line: str) -> None:
        if self._process.stdin is None:
            raise DeploycheckError("the worker has no input")
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None

    def _show_output(self) -> None:
        """Print what the user's code has printed, for pytest to capture as it does for any test."""
        printed = self._output()
        self._shown += len(printed)
        sys.stdout.write(printed.decode(errors="replace"))

    def _output(self) -> bytes:
        """Return what was printed and has not been shown yet."""
        with self.log.open("rb") as output:
            output.seek(self._shown)
            return output.read()

    def close(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                if pipe:
                    pipe.close()
