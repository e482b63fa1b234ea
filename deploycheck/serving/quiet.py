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
_IDLE, _STEAL = slice(3, 5), 7
_SCHEDULED = 2


@dataclass(frozen=True)
class Reading:
    """The machine at one time: seconds on the clock, and seconds of CPU since it started.

    ``idle`` is nobody's, ``own`` ours, ``stolen`` what the host withheld; the rest is other processes'. Those of the
    busy are sampled at each tick, the idle and the own are timed, which tells a burst of 50 ms from none.
    ``frequency`` is the mean of the cores' in Hz, 0 where it isn't told; ``load`` the load average over a minute.
    """

    at: float
    idle: float
    own: float
    stolen: float
    frequency: float
    load: float


def read(processes: Iterable[int]) -> Reading | None:
    """Return how things stand, ``processes`` being ours; None where the system doesn't tell."""
    try:
        ticks = [int(word) for word in (PROC / "stat").read_text().partition("\n")[0].split()[1:]]
        if not any(ticks):  # a sandbox that only looks like Linux
            return None
        tick = os.sysconf("SC_CLK_TCK")
        own = sum(map(_time_of, processes))
        load = float((PROC / "loadavg").read_text().split()[0])
        return Reading(time.perf_counter(), sum(ticks[_IDLE]) / tick, own, ticks[_STEAL] / tick, _frequency(), load)
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def _time_of(process: int) -> float:
    """Return a process's CPU time in seconds, by the clock that Linux keeps of it; 0 where it has ended."""
    try:
        return time.clock_gettime(~process << 3 | _SCHEDULED)  # clock_getcpuclockid(3), which Python lacks
    except OSError:
        return 0.0


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
    stolen = after.stolen - before.stolen
    others = capacity - (after.idle - before.idle) - stolen - (after.own - before.own)
    return Conditions(
        max(0.0, others / capacity),
        stolen / capacity,
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
