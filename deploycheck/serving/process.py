"""The parent's side of a server: start its process, wait until it is ready, and make sure that it ends."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deploycheck.errors import DeploycheckError
from deploycheck.language.spec import Batching
from deploycheck.serving.machine_state import MachineWatch

START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 15.0
DYING_S = 1.0
"""How long a server may take to end after it has closed its connections."""
LAST_LINES = 5


class ServerFailed(DeploycheckError):
    """The server did not start, or died."""


def batching_options(batching: Batching) -> tuple[str, ...]:
    """Return the server's options for a spec's ``batching``."""
    return f"--max-batch={batching.max_size}", f"--max-delay-ms={batching.max_delay * 1e3:g}"


class ServerProcess:
    """A server for one artifact, as a context manager. It never outlives this process.

    ``options`` are further arguments of ``deploycheck serve``, ``extensions`` the files in which runtimes may be
    declared; its standard error goes to ``log``. Within the block the server is ready: ``address`` answers, and
    ``cold_start_s`` is the time from starting the process until it was ready, and ``disturbed_start`` says what
    disturbed the machine meanwhile.
    """

    def __init__(
        self,
        artifact: Path,
        options: Sequence[str],
        log: Path,
        extensions: Sequence[Path] = (),
        *,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        declared = [f"--extensions={file}" for file in extensions]
        command = [sys.executable, "-P", "-m", "deploycheck.serving", str(artifact), "--port=0", "--exit-with-parent"]
        self.command = [*command, *declared, *options]
        self.log = log
        self.start_timeout_s = start_timeout_s
        self.address = ""
        self.cold_start_s = 0.0
        self.disturbed_start = ""
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        watch = MachineWatch([os.getpid()])
        started = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        try:
            event = self._first_event(started + self.start_timeout_s)
        except BaseException:
            self.stop()
            raise
        self.cold_start_s = time.monotonic() - started
        self.disturbed_start = watch.including(self.process.pid)()
        self.address = event["address"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None and self.process:
                self._blame_its_end(error, self.process)
        finally:
            self.stop()

    def _blame_its_end(self, error: BaseException, process: subprocess.Popen[bytes]) -> None:
        """Raise ``ServerFailed`` where a connection failed because the server has died."""
        import aiohttp

        if isinstance(error, aiohttp.ClientError):
            with suppress(subprocess.TimeoutExpired):
                process.wait(DYING_S)
            self.check_alive()

    def check_alive(self) -> None:
        """Raise ``ServerFailed`` if the server has died."""
        code = self.process.poll() if self.process else None
        if code is not None:
            raise self._failure(f"the server died with {_exit(code)}")

    def stop(self) -> int | None:
        """End the server and all it started, by SIGTERM, then by SIGKILL; return its exit code."""
        process = self.process
        if process is None:
            return None
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()
        return code

    def _first_event(self, deadline: float) -> dict[str, Any]:
        """Return the event that says that the server is ready; raise ``ServerFailed`` where none comes."""
        process = self.process
        if process is None or process.stdout is None:
            raise ServerFailed("the server was not started")
        line = b""
        while not line.endswith(b"\n"):
            readable, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                raise self._failure(f"the server was not ready after {self.start_timeout_s:g} s")
            part = os.read(process.stdout.fileno(), 65536)
            if not part:
                raise self._failure(f"the server ended with {_exit(process.wait())} before it was ready")
            line += part
        event: dict[str, Any] = json.loads(line.splitlines()[0])
        if event["event"] != "ready":
            raise ServerFailed(f"the server refused to start: {event['error']}", hint=event.get("hint", ""))
        return event

    def _failure(self, what: str) -> ServerFailed:
        lines = self.log.read_text(errors="replace").splitlines()[-LAST_LINES:] if self.log.exists() else []
        said = "; it last said:\n    " + "\n    ".join(lines) if lines else ""
        return ServerFailed(what + said, where=str(self.log))


def _exit(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
