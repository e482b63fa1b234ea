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

from deploycheck.errors import DeploycheckError

MOST_WAITING_S = 600.0
"""How long one process is waited for: a load test or a comparison takes minutes."""


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

        The run's own processes are waited for first: other runs may measure meanwhile. Raises ``DeploycheckError``
        where one process measures for longer than ``MOST_WAITING_S``.
        """
        self.hold_folder()
        with (
            self._of_run("write", "serve: waiting for the other processes of this run, which would disturb it"),
            self._of_user(),
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
    def _of_user(self) -> Iterator[None]:
        file = lock_file()
        lock, holder, timeout_s = FileLock(file), None, 0.0
        while not lock.is_locked:
            try:
                lock.acquire(timeout=timeout_s)
            except Timeout:
                before, holder = holder, find_holder(file)
                if timeout_s and holder == before:
                    who = f"process {holder}" if holder else "another process"
                    what = f"waited {MOST_WAITING_S / 60:.0f} minutes for other measurements to end; {who} measures now"
                    hint = "wait until it ends, or end it; then run again"
                    raise DeploycheckError(what, where=str(file), hint=hint) from None
                if not timeout_s:
                    self.progress(f"serve: waiting for another measurement on this machine to end ({file})")
                timeout_s = MOST_WAITING_S
        try:
            yield
        finally:
            lock.release()

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


def find_holder(file: Path) -> int | None:
    """Return the id of the process that has locked a file, or None where the system doesn't say."""
    try:
        inode, locks = str(file.stat().st_ino), Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    for _, kind, _, _, process, place, *_ in (line.split() for line in locks if "->" not in line):
        if kind == "FLOCK" and place.rpartition(":")[2] == inode and int(process) > 0:
            return int(process)
    return None


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
