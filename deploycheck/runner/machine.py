"""Locks between processes: no measurement is disturbed, and no run's folder is removed while it is in use."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, ReadWriteLock, Timeout


class Machine:
    """What the processes of a run share: those that work, and the one that measures.

    ``folder`` is the run's; ``progress`` is called with what it waits for. A process that ends releases its locks.
    """

    def __init__(self, folder: Path, progress: Callable[[str], None]) -> None:
        self.folder = folder
        self.progress = progress
        self._hold: int | None = None

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work within the block, at the same time as other processes, while none of this run measures.

        In a cache that can't be written no process of this run can measure, so there is nothing to wait for.
        """
        with ExitStack() as stack:
            with suppress(OSError):
                self.hold_folder()
            if self._hold is not None:
                stack.enter_context(self._of_run("read", "waiting while another process of this run measures"))
            yield

    @contextmanager
    def timing(self) -> Iterator[None]:
        """Measure within the block, once the run's other processes have finished what they were doing.

        The run's own processes are waited for first: other runs may measure meanwhile.
        """
        self.hold_folder()
        file = lock_file()
        lock = FileLock(file)
        waits = f"serve: waiting for another measurement on this machine to end ({file})"
        with (
            self._of_run("write", "serve: waiting for the other processes of this run, which would disturb it"),
            self._held(lambda timeout_s: lock.acquire(timeout=timeout_s), waits),
        ):
            yield

    def hold_folder(self) -> None:
        """Make the run's folder, and keep other runs from removing it until ``close``, or until this process ends.

        Raises ``OSError`` where it can't be made.
        """
        if self._hold is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._hold = os.open(self.folder, os.O_RDONLY)
            fcntl.flock(self._hold, fcntl.LOCK_SH)

    def close(self) -> None:
        """Let other runs remove the run's folder."""
        if self._hold is not None:
            os.close(self._hold)
            self._hold = None

    @contextmanager
    def _of_run(self, side: str, waits: str) -> Iterator[None]:
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


def remove_unless_held(folder: Path) -> None:
    """Remove a run's folder, unless a process of that run still holds it or it can't be removed."""
    with suppress(OSError):  # it is held, or another process has removed it
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
        finally:
            os.close(descriptor)


def lock_file() -> Path:
    """Return the lock of this user's measurements on this machine.

    There is one per user: a file that another user owns can't be locked. Two users' measurements may disturb each
    other, which the watch on the machine's state notices.
    """
    return Path(tempfile.gettempdir()) / f"deploycheck-measuring-{os.getuid()}.lock"
