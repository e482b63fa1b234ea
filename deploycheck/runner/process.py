"""The parent's side of a worker: start it, give it tasks, show its progress, and end it in any case."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from deploycheck.errors import DeploycheckError
from deploycheck.runner.code import PACKAGE
from deploycheck.runner.tasks import AlreadyFailed, Task

CLOSING_S = 2.0


class CodeFailed(DeploycheckError):
    """A step's work raised; ``trace`` is the traceback from where the user's code began, if that raised."""

    def __init__(self, what: str, *, where: str, hint: str, trace: str) -> None:
        super().__init__(what, where=where, hint=hint)
        self.trace = trace


class Worker:
    """A process that does steps, each in a fork of its own. It never outlives this one.

    ``environment`` and ``path`` are this process's environment variables and import path as they were before any of the
    user's code ran in it.
    """

    def __init__(self, root: Path, cache: Path, log: Path, environment: Mapping[str, str], path: Sequence[str]) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-P", "-m", "deploycheck.runner.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                cwd=root,
                env={**environment, "PYTHONPATH": _with_package(environment.get("PYTHONPATH", ""))},
                start_new_session=True,  # Ctrl-C is for the parent, which ends this one
            )
        self._shown = log.stat().st_size
        self._send(json.dumps({"root": str(root), "cache": str(cache), "path": list(path)}))

    def do(self, task: Task, progress: Callable[[str], None]) -> tuple[str, bool]:
        """Have a task done; return the address of its artifact, and whether another process had built it meanwhile.

        Raises ``CodeFailed`` where its work raised, ``AlreadyFailed`` where it has failed in another process,
        ``DeploycheckError`` where the process that did it died.
        """
        self._send(task.to_json())
        answer: dict[str, Any] = {}
        code = 0
        try:
            for line in self._lines():
                if "progress" in line:
                    progress(line["progress"])
                elif "ended" in line:
                    code = line["ended"]
                    break
                else:
                    answer = line
            if not answer:
                raise self._died(code)
        finally:
            self._show_output()
        if "already_failed" in answer:
            raise AlreadyFailed(answer["already_failed"])
        if "failed" in answer:
            raise CodeFailed(**answer["failed"])
        return answer["done"]["key"], bool(answer["done"]["reused"])

    def _lines(self) -> Iterator[dict[str, Any]]:
        if self._process.stdout is None:
            raise DeploycheckError("the worker has no output")
        for line in self._process.stdout:
            yield json.loads(line)
        raise self._died(self._process.wait())

    def _died(self, code: int) -> DeploycheckError:
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
            raise self._died(self._process.wait()) from None

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
        """End it, and the step that it does."""
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                if pipe:
                    pipe.close()  # at which it kills the step's process and ends
        try:
            self._process.wait(CLOSING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _with_package(path: str) -> str:
    """Return an import path by which this package is found, wherever it is."""
    return os.pathsep.join(filter(None, [path, str(PACKAGE.parent)]))
