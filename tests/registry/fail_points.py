"""Kill a process at every point where it writes, one run a point, and leave what each run left."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sqlite3
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Arm = Callable[[], None]
Scenario = Callable[[Path, Arm], None]


def kill_everywhere(scenario: Scenario, folder: Path) -> list[Path]:
    """Run ``scenario(folder, arm)`` again and again, each time killed by SIGKILL one point later.

    The points count from its call of ``arm``: before each fsync and rename, before and after each SQL
    statement, and in the middle of each file. Returns the folders that the runs left; the last run was not
    killed.
    """
    process = multiprocessing.get_context("spawn").Process(target=_kill_in_forks, args=(scenario, folder))
    process.start()
    process.join()
    assert process.exitcode == 0
    return sorted(folder.iterdir())


def _kill_in_forks(scenario: Scenario, folder: Path) -> None:
    """Fork for each run: this process is fresh and has one thread, so that a fork is safe and cheap."""
    status = signal.SIGKILL
    number = 0
    while status == signal.SIGKILL:
        number += 1
        mine = folder / f"{number:03}"
        mine.mkdir()
        child = os.fork()
        if child == 0:
            _run(scenario, mine, number)
        _, status = os.waitpid(child, 0)
    assert status == 0, "the scenario itself failed"


def _run(scenario: Scenario, folder: Path, number: int) -> None:
    points = Points(number)
    try:
        scenario(folder, points.arm)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


class Points:
    """Counts what a process does to the disk, and kills it at the point of this number."""

    def __init__(self, number: int) -> None:
        self.left = number

    def arm(self) -> None:
        for name in ("fsync", "rename", "replace"):
            setattr(os, name, self._before(getattr(os, name)))
        shutil.copyfile = self._torn_copy(shutil.copyfile)
        for name in ("write_bytes", "write_text"):
            setattr(Path, name, self._torn_write(getattr(Path, name)))
        plain = sqlite3.connect
        sqlite3.connect = lambda *args, **kwargs: plain(*args, factory=self._connection(), **kwargs)

    def point(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def _before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def before(*args: Any, **kwargs: Any) -> Any:
            self.point()
            return call(*args, **kwargs)

        return before

    def _around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def around(*args: Any, **kwargs: Any) -> Any:
            self.point()
            result = call(*args, **kwargs)
            self.point()
            return result

        return around

    def _torn_write(self, write: Callable[..., int]) -> Callable[..., int]:
        def torn(path: Path, content: bytes | str, *args: Any) -> int:
            write(path, content[: len(content) // 2], *args)
            self.point()
            return write(path, content, *args)

        return torn

    def _torn_copy(self, copy: Callable[..., Any]) -> Callable[..., Any]:
        def torn(source: Path, target: Path) -> Any:
            copy(source, target)
            os.truncate(target, target.stat().st_size // 2)
            self.point()
            return copy(source, target)

        return torn

    def _connection(self) -> type[sqlite3.Connection]:
        around = self._around

        class Connection(sqlite3.Connection):
            def execute(self, *args: Any) -> sqlite3.Cursor:
                return around(super().execute)(*args)

        return Connection
