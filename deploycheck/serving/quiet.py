"""Whether the machine is quiet: what processes other than ours, and other machines on the same host, take of it.

Read from Linux's ``/proc`` (proc(5)). Elsewhere nothing is known, and nothing is called disturbed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC, CPUS = Path("/proc"), Path("/sys/devices/system/cpu")
MOST_TAKEN = 0.10
"""The share of the machine that others, and the host, may take before what was timed meanwhile is taken again."""
MOST_SLOWED = 0.9
"""A block that ends at less than this of the frequency it began at is taken again."""
_USER, _IDLE, _STEAL = slice(0, 3), slice(3, 5), 7


@dataclass(frozen=True)
class Reading:
    """The machine at one time: seconds on the clock, and seconds of CPU since it started.

    ``busy`` is all processes', ``own`` ours, ``stolen`` what the host withheld; ``frequency`` the mean of the
    cores' in Hz, 0 where it isn't told. ``load`` is the load average over a minute.
    """

    at: float
    busy: float
    own: float
    stolen: float
    frequency: float
    load: float


def read(processes: Iterable[int]) -> Reading | None:
    """Return how things stand, ``processes`` being ours; None where the system doesn't tell."""
    try:
        ticks = [int(word) for word in (PROC / "stat").read_text().partition("\n")[0].split()[1:]]
        tick = os.sysconf("SC_CLK_TCK")
        busy = sum(ticks[_USER]) + sum(ticks[5:7])
        own = sum(map(_ticks_of, processes))
        load = float((PROC / "loadavg").read_text().split()[0])
        return Reading(time.perf_counter(), busy / tick, own / tick, ticks[_STEAL] / tick, _frequency(), load)
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def _ticks_of(process: int) -> int:
    """Return the CPU time of a process and of its children that have ended; 0 where it has ended itself."""
    try:
        fields = (PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(field) for field in fields[11:15])


def _frequency() -> float:
    found = [float(file.read_text()) for file in CPUS.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    return sum(found) / len(found) * 1e3 if found else 0.0


@dataclass(frozen=True)
class Conditions:
    """What the machine was like between two readings.

    ``others`` and ``stolen`` are shares of it that other processes took and the host withheld; ``load_average``
    and ``frequency_hz`` are those before and after.
    """

    others: float
    stolen: float
    load_average: tuple[float, float]
    frequency_hz: tuple[float, float]


def conditions(before: Reading | None, after: Reading | None) -> Conditions | None:
    """Return what the machine was like between two readings; None where nothing is known."""
    if before is None or after is None or after.at <= before.at:
        return None
    capacity = (after.at - before.at) * (os.cpu_count() or 1)
    others = (after.busy - before.busy) - (after.own - before.own)
    return Conditions(
        max(0.0, others / capacity),
        (after.stolen - before.stolen) / capacity,
        (before.load, after.load),
        (before.frequency, after.frequency),
    )


def disturbance(before: Reading | None, after: Reading | None) -> str:
    """Return what disturbed the machine between two readings; empty where nothing did, or nothing is known."""
    found = conditions(before, after)
    if found is None or before is None or after is None:
        return ""
    # Each counter is only as fine as a tick.
    tick = 1 / os.sysconf("SC_CLK_TCK") / ((after.at - before.at) * (os.cpu_count() or 1))
    began, ended = found.frequency_hz
    if found.others - 2 * tick > MOST_TAKEN:
        return f"other processes took {found.others:.0%} of the machine"
    if found.stolen - tick > MOST_TAKEN:
        return f"the host withheld {found.stolen:.0%} of the machine"
    if ended < MOST_SLOWED * began:
        return f"the processor slowed from {began / 1e9:.2f} to {ended / 1e9:.2f} GHz"
    return ""
