"""Who works while something is timed: nobody else of the same run, and no other measurement on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock, ReadWriteLock, Timeout


class Machine:
    """What the processes of a run share, those that work and the one that times.

    ``folder`` is the run's, ``report`` is told what is waited for. A process that dies lets go of what it held.
    """

    def __init__(self, folder: Path, report: Callable[[str], None]) -> None:
        self.folder = folder
        self.report = report

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work, beside others, while nothing of this run is timed."""
        with self._of_run("read", "waiting while another process of this run measures"):
            yield

    @contextmanager
    def timing(self) -> Iterator[None]:
        """Time something, once the run's other processes are done with what they were at."""
        measuring = FileLock(Path(tempfile.gettempdir()) / "deploycheck-measuring.lock", mode=0o666)
        waits = "serve: waiting for another measurement on this machine to end"
        with (
            self._held(lambda patience: measuring.acquire(timeout=patience), waits),
            self._of_run("write", "serve: waiting for the other processes of this run, which would disturb it"),
        ):
            yield

    @contextmanager
    def _of_run(self, side: str, waits: str) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        # Not the one that filelock keeps for a path: it would be this process's for good, forks and all.
        lock = ReadWriteLock(self.folder / "machine.lock", is_singleton=False)
        acquire = lock.acquire_read if side == "read" else lock.acquire_write
        try:
            with self._held(acquire, waits):
                yield
        finally:
            lock.close()

    @contextmanager
    def _held(self, acquire: Callable[[float], AbstractContextManager[object]], waits: str) -> Iterator[None]:
        """Hold a lock, saying so where it isn't to be had at once."""
        try:
            held = acquire(0)
        except Timeout:
            self.report(waits)
            held = acquire(-1)
        with held:
            yield
