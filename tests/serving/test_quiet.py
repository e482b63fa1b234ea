"""Who took the machine: readings of a made-up ``/proc``, and of the real one beside a busy process."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploycheck.serving import quiet
from deploycheck.serving.quiet import MOST_TAKEN, Reading, conditions, disturbance, read

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
    return replace(
        BEFORE, at=BEFORE.at + 1, idle=BEFORE.idle + CORES - own - others - stolen, own=BEFORE.own + own,
        stolen=BEFORE.stolen + stolen, frequency=BEFORE.frequency * slowed,
    )  # fmt: skip


@given(st.floats(0, CORES))
def test_what_is_our_own_disturbs_nothing(own: float) -> None:
    assert disturbance(BEFORE, after(own=own)) == ""


def test_other_processes_the_host_and_a_slower_processor_do() -> None:
    much = (MOST_TAKEN + 0.1) * CORES
    assert disturbance(BEFORE, after(others=much)).startswith("other processes took ")
    assert disturbance(BEFORE, after(stolen=much)).startswith("the host withheld ")
    assert disturbance(BEFORE, after(slowed=0.5)) == "the processor slowed from 3.00 to 1.50 GHz"


def test_a_little_of_either_is_no_disturbance() -> None:
    assert disturbance(BEFORE, after(others=0.5 * MOST_TAKEN * CORES, stolen=0.5 * MOST_TAKEN * CORES)) == ""
    assert disturbance(BEFORE, after(slowed=0.95)) == ""


def test_where_nothing_is_known_nothing_is_called_disturbed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert disturbance(None, BEFORE) == disturbance(BEFORE, None) == disturbance(BEFORE, BEFORE) == ""
    monkeypatch.setattr(quiet, "PROC", tmp_path)
    assert read([]) is None
    (tmp_path / "stat").write_text("cpu  0 0 0 0 0 0 0 0 0 0\n")
    (tmp_path / "loadavg").write_text("0.00 0.00 0.00 0/0 0\n")
    assert read([]) is None  # a sandbox's


def test_a_reading_of_a_made_up_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tick = os.sysconf("SC_CLK_TCK")
    monkeypatch.setattr(quiet, "PROC", tmp_path / "proc")
    monkeypatch.setattr(quiet, "CPUS", tmp_path / "cpus")
    for name, text in {
        "proc/stat": f"cpu  {3 * tick} {tick} {2 * tick} {5 * tick} {4 * tick} {tick} 0 {7 * tick} 0 0\ncpu0 1 2 3\n",
        "proc/loadavg": "1.25 0.9 0.7 2/345 6789\n",
        "cpus/cpu0/cpufreq/scaling_cur_freq": "2000000\n",
        "cpus/cpu1/cpufreq/scaling_cur_freq": "3000000\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    reading = read([])
    assert reading is not None
    assert (reading.idle, reading.own, reading.stolen) == (9.0, 0.0, 7.0)
    assert (reading.frequency, reading.load) == (2.5e9, 1.25)


@pytest.mark.skipif(not (quiet.PROC / "stat").exists(), reason="only Linux tells")
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
