"""Locks that keep measurements undisturbed: by other processes of the same run, and by other runs of the same user."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock, ReadWriteLock, Timeout


class Machine:
    """What the processes of a run share: those that work, and the one that measures.

    ``folder`` is the run's; ``progress`` is called with what it waits for. A process that ends releases its locks.
    """

    def __init__(self, folder: Path, progress: Callable[[str], None]) -> None:
        self.folder = folder
        self.progress = progress

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work within the block, at the same time as other processes, while none of this run measures."""
        with self._of_run("read", "waiting while another process of this run measures"):
            yield

    @contextmanager
    def timing(self) -> Iterator[None]:
        """Measure within the block, once the run's other processes have finished what they were doing."""
        file = lock_file()
        lock = FileLock(file)
        waits = f"serve: waiting for another measurement on this machine to end ({file})"
        with (
            self._held(lambda timeout_s: lock.acquire(timeout=timeout_s), waits),
            self._of_run("write", "serve: waiting for the other processes of this run, which would disturb it"),
        ):
            yield

    @contextmanager
    def _of_run(self, side: str, waits: str) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        # Not the lock that filelock keeps for each path: it would be held until this process and its forks end.
        lock = ReadWriteLock(self.folder / "machine.lock", is_singleton=False)
        acquire = lock.acquire_read if side == "read" else lock.acquire_write
        try:
            with self._held(acquire, waits):
                yield
        finally:
            lock.close()

    @contextmanager
    def _held(self, acquire: Callable[[float], AbstractContextManager[object]], waits: str) -> Iterator[None]:
        """Hold a lock within the block; report it where another process has it."""
        try:
            held = acquire(0)
        except Timeout:
            self.progress(waits)
            held = acquire(-1)
        with held:
            yield


def lock_file() -> Path:
    """Return the lock of this user's measurements on this machine.

    There is one per user: a file that another user owns can't be locked. Two users' measurements may disturb each
    other, which the watch on the machine's state notices.
    """
    return Path(tempfile.gettempdir()) / f"deploycheck-measuring-{os.getuid()}.lock"
