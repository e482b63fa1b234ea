"""Work and measurements wait for each other, between real processes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.runner.machine import Machine, lock_file, remove_unless_held

HOLDER = """
import sys
from pathlib import Path
from deploycheck.errors import DeploycheckError
from deploycheck.runner.machine import Machine
machine = Machine(Path(sys.argv[1]), print)
with getattr(machine, sys.argv[2])():
    print("held", flush=True)
    sys.stdin.readline()
"""

pytestmark = pytest.mark.usefixtures("own_machine")


@pytest.fixture
def own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the locks of these tests apart from those of measurements elsewhere on this machine."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


@contextmanager
def holding(folder: Path, side: str) -> Iterator[subprocess.Popen[str]]:
    """Have another process hold the machine."""
    command = [sys.executable, "-c", HOLDER, str(folder), side]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def let_go(process: subprocess.Popen[str]) -> None:
    process.communicate("\n", timeout=30)
    assert process.returncode == 0


class Attempt:
    """One side, taken in a thread: whether it had to wait, and whether it has it."""

    def __init__(self, folder: Path, side: str) -> None:
        self.waits, self.has = threading.Event(), threading.Event()
        self.said: list[str] = []
        self.machine = Machine(folder, self.report)
        self.thread = threading.Thread(target=self.take, args=(side,), daemon=True)
        self.thread.start()

    def report(self, line: str) -> None:
        self.said.append(line)
        self.waits.set()

    def take(self, side: str) -> None:
        with getattr(self.machine, side)():
            self.has.set()

    def succeeds(self) -> bool:
        """Wait until the side has been taken and let go again."""
        self.thread.join(30)
        return self.has.is_set() and not self.thread.is_alive()


def test_processes_work_beside_each_other(tmp_path: Path) -> None:
    with holding(tmp_path, "working"):
        attempt = Attempt(tmp_path, "working")
        assert attempt.succeeds()
        assert attempt.said == []


@pytest.mark.parametrize(
    ("held", "wanted", "says"),
    [
        ("working", "timing", "serve: waiting for the other processes of this run, which would disturb it"),
        ("timing", "working", "waiting while another process of this run measures"),
        ("timing", "timing", "serve: waiting for the other processes of this run, which would disturb it"),
    ],
)
@pytest.mark.parametrize("end", ["let go", "killed"])
def test_what_would_disturb_waits_until_it_may(held: str, wanted: str, says: str, end: str, tmp_path: Path) -> None:
    with holding(tmp_path, held) as process:
        attempt = Attempt(tmp_path, wanted)
        assert attempt.waits.wait(30)
        assert attempt.said == [says]
        assert not attempt.has.is_set()
        if end == "killed":
            process.kill()
        else:
            let_go(process)
        assert attempt.succeeds()


def test_another_runs_work_is_not_waited_for_but_its_measurement_is(tmp_path: Path) -> None:
    with holding(tmp_path / "theirs", "working"):
        assert Attempt(tmp_path / "ours", "timing").succeeds()
    with holding(tmp_path / "theirs", "timing") as process:
        assert Attempt(tmp_path / "ours", "working").succeeds()
        attempt = Attempt(tmp_path / "ours", "timing")
        assert attempt.waits.wait(30)
        assert attempt.said == [f"serve: waiting for another measurement on this machine to end ({lock_file()})"]
        assert not attempt.has.is_set()
        let_go(process)
        assert attempt.succeeds()


def test_a_measurement_that_never_ends_is_waited_for_only_so_long_and_its_process_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploycheck.runner.machine.MOST_WAITING_S", 0.01)
    with holding(tmp_path / "theirs", "timing") as process:
        ours = Machine(tmp_path / "ours", print)
        with (
            pytest.raises(DeploycheckError, match="minutes for other measurements to end; process") as refused,
            ours.timing(),
        ):
            pass
        named = f"process {process.pid} " if Path("/proc/locks").exists() else "another process "
        assert f"{named}measures now" in refused.value.what
        let_go(process)
    with ours.timing():
        pass


def test_a_run_that_waits_for_its_own_processes_lets_other_runs_measure(tmp_path: Path) -> None:
    with holding(tmp_path / "ours", "working") as process:
        attempt = Attempt(tmp_path / "ours", "timing")
        assert attempt.waits.wait(30)
        assert Attempt(tmp_path / "theirs", "timing").succeeds()
        assert not attempt.has.is_set()
        let_go(process)
        assert attempt.succeeds()


def test_what_was_held_is_let_go_where_the_work_raises(tmp_path: Path) -> None:
    machine = Machine(tmp_path, print)
    for side in (machine.timing, machine.working):
        with pytest.raises(ValueError, match="no"), side():
            raise ValueError("no")
    with machine.timing():
        pass


def test_a_runs_folder_is_kept_until_its_processes_have_ended(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ours = Machine(folder, print)
    with holding(folder, "working") as process:
        with ours.working():
            pass
        remove_unless_held(folder)
        assert folder.exists()
        process.kill()
        process.wait(30)
    remove_unless_held(folder)
    assert folder.exists()
    ours.close()
    remove_unless_held(folder)
    assert not folder.exists()
    remove_unless_held(folder)


def test_work_goes_on_where_no_folder_can_be_made_and_a_measurement_does_not(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file in the folder's place")
    machine = Machine(tmp_path / "runs" / "run", print)
    done = False
    with machine.working():
        done = True
    assert done
    with pytest.raises(NotADirectoryError), machine.timing():
        pass


def test_each_user_has_a_lock_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = lock_file()
    monkeypatch.setattr("os.getuid", lambda: 12345)
    assert "12345" in lock_file().name
    assert lock_file() != ours
    assert lock_file().parent == ours.parent
