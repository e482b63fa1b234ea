"""Who used the machine: readings as psutil would give them, and real ones beside a busy process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploycheck.serving import machine_state
from deploycheck.serving.load import INTERVAL_S
from deploycheck.serving.machine_state import MOST_TAKEN, MachineWatch, Reading, conditions, disturbance, read

BUSY = """
import time
print(flush=True)
while time.process_time() < 0.6:
    pass
print(flush=True)
input()
"""
CORES = os.cpu_count() or 1
BEFORE = Reading(at=100.0, idle=50.0, own=20.0, stolen=5.0, frequency=3e9, load=0.5)


def after(own: float = 0.0, others: float = 0.0, stolen: float = 0.0, slowed: float = 1.0) -> Reading:
    """Return a reading a second after ``BEFORE``, in which so many seconds of CPU time were used by each."""
    return replace(
        BEFORE,
        at=BEFORE.at + 1,
        idle=BEFORE.idle + CORES - own - others - stolen,
        own=BEFORE.own + own,
        stolen=BEFORE.stolen + stolen,
        frequency=BEFORE.frequency * slowed,
    )


@given(st.floats(0, CORES))
def test_what_is_our_own_disturbs_nothing(own: float) -> None:
    assert disturbance(BEFORE, after(own=own)) == ""


def test_other_processes_the_host_and_a_slower_processor_do() -> None:
    much = (MOST_TAKEN + 0.1) * CORES
    assert disturbance(BEFORE, after(others=much)).startswith("other processes took ")
    assert disturbance(BEFORE, after(stolen=much)).startswith("the host withheld ")
    assert disturbance(BEFORE, after(slowed=0.5)) == "the processor slowed from 3.00 to 1.50 GHz"


def test_a_little_of_either_is_not_a_disturbance() -> None:
    assert disturbance(BEFORE, after(others=0.5 * MOST_TAKEN * CORES, stolen=0.5 * MOST_TAKEN * CORES)) == ""
    assert disturbance(BEFORE, after(slowed=0.95)) == ""


def test_a_burst_of_50_ms_on_every_core_is_seen_in_an_interval_of_a_load() -> None:
    quiet = replace(BEFORE, at=BEFORE.at + INTERVAL_S, idle=BEFORE.idle + CORES * INTERVAL_S)
    assert disturbance(BEFORE, quiet) == ""
    assert disturbance(BEFORE, replace(quiet, idle=quiet.idle - CORES * 0.05)).startswith("other processes took 25%")


def test_where_nothing_is_known_nothing_is_called_disturbed() -> None:
    assert disturbance(None, BEFORE) == disturbance(BEFORE, None) == disturbance(BEFORE, BEFORE) == ""


Times = namedtuple("Times", "user system idle")
LinuxTimes = namedtuple("LinuxTimes", "user system idle iowait steal")
Frequency = namedtuple("Frequency", "current")


def system(monkeypatch: pytest.MonkeyPatch, times: tuple[float, ...], frequency: Callable[[], object]) -> None:
    """Have psutil describe another system."""
    monkeypatch.setattr("psutil.cpu_times", lambda: times)
    monkeypatch.setattr("psutil.cpu_freq", frequency)
    monkeypatch.setattr("psutil.getloadavg", lambda: (1.25, 0.9, 0.7))


def test_waiting_for_a_disk_is_idle_and_what_the_host_withheld_is_stolen(monkeypatch: pytest.MonkeyPatch) -> None:
    system(monkeypatch, LinuxTimes(3.0, 2.0, 5.0, 4.0, 7.0), lambda: Frequency(2500.0))
    reading = read([])
    assert reading
    assert (reading.idle, reading.own, reading.stolen) == (9.0, 0.0, 7.0)
    assert (reading.frequency, reading.load) == (2.5e9, 1.25)


def test_a_system_without_steal_and_frequency_is_read_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> None:
        raise NotImplementedError

    system(monkeypatch, Times(3.0, 2.0, 5.0), unknown)
    reading = read([])
    assert reading
    assert (reading.idle, reading.stolen, reading.frequency) == (5.0, 0.0, 0.0)
    system(monkeypatch, Times(3.0, 2.0, 5.0), lambda: None)
    reading = read([])
    assert reading
    assert reading.frequency == 0.0


def test_elsewhere_than_on_linux_own_time_is_psutils(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_state.sys, "platform", "darwin")
    reading = read([os.getpid()])
    assert reading
    assert reading.own > 0


def test_a_sandbox_that_counts_no_time_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    system(monkeypatch, LinuxTimes(0.0, 0.0, 0.0, 0.0, 0.0), lambda: None)
    assert read([]) is None


def test_a_watch_reports_each_interval_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    much = after(others=CORES)
    readings = iter([BEFORE, much, replace(much, at=much.at + 1, idle=much.idle + CORES)])
    monkeypatch.setattr(machine_state, "read", lambda _: next(readings))
    watch = MachineWatch([])
    assert watch() == "other processes took 100% of the machine"
    assert watch() == ""


def burn(seconds: float) -> float:
    """Use so much CPU time of this process; return what its own clock says of it."""
    began = time.process_time()
    while time.process_time() < began + seconds:
        pass
    return time.process_time() - began


@pytest.mark.skipif(sys.platform != "linux", reason="psutil counts whole ticks")
@pytest.mark.parametrize("seconds", [0.05, 0.033])
def test_own_time_is_exact_to_far_less_than_a_tick(seconds: float) -> None:
    before = read([os.getpid()])
    used = burn(seconds)
    then = read([os.getpid()])
    assert before
    assert then
    assert then.own - before.own == pytest.approx(used, abs=0.005)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere other processes are seen less exactly")
def test_a_busy_process_is_seen_unless_it_is_ours() -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        ours, theirs = read([os.getpid(), process.pid]), read([os.getpid()])
        process.stdout.readline()
        ours_then, theirs_then = read([os.getpid(), process.pid]), read([os.getpid()])
        seen, without = conditions(theirs, theirs_then), conditions(ours, ours_then)
        assert seen
        assert without
        assert ours_then
        assert theirs_then
        assert seen.others > without.others
        assert ours_then.own - theirs_then.own > 0.5
        process.communicate(b"\n")
    ended = read([process.pid])
    assert ended
    assert ended.own == 0
