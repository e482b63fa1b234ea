"""Whether the machine is quiet: what other processes, and other machines on the same host, take of its CPU time."""

from __future__ import annotations

import copy
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from deploycheck.serving.load_report import Conditions

MOST_TAKEN = 0.10
"""The share of the machine that others, and the host, may take before what was measured meanwhile is disturbed."""
MOST_SLOWED = 0.9
"""An interval that ends at less than this share of the frequency it began at is disturbed."""
_SCHEDULED = 2


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The machine at one time: seconds on the clock, and seconds of CPU time since it started.

    ``idle`` is nobody's, ``own`` is ours, ``stolen`` is what the host withheld; the rest is other processes'. Busy
    CPU time is sampled by the kernel at each tick, idle and own time are exact, so that a burst of 50 ms is seen.
    ``frequency`` is the mean of the cores' in Hz, 0 where it is unknown; ``load`` the load average over a minute.
    """

    at: float
    idle: float
    own: float
    stolen: float
    frequency: float
    load: float


def read(processes: Iterable[int]) -> Reading | None:
    """Return the state of the machine, ``processes`` being ours; None where the system keeps no count of CPU time."""
    times = psutil.cpu_times()
    if not any(times):  # a sandbox that only looks like Linux
        return None
    return Reading(
        at=time.perf_counter(),
        idle=times.idle + getattr(times, "iowait", 0.0),
        own=sum(map(_cpu_time, processes)),
        stolen=getattr(times, "steal", 0.0),
        frequency=_frequency(),
        load=psutil.getloadavg()[0],
    )


def _cpu_time(process: int) -> float:
    """Return the CPU time of a process in seconds; 0 where it has ended.

    On Linux psutil counts whole ticks of 10 ms, user and system apart. Of a client and two servers that is up to
    60 ms of the 400 ms that two cores have in an interval, more than others may take. The kernel's own clock of a
    process is exact.
    """
    try:
        if sys.platform == "linux":
            return time.clock_gettime(~process << 3 | _SCHEDULED)  # clock_getcpuclockid(3), which Python lacks
        else:  # noqa: RET505 - type checkers take what follows an `if` on the platform for unreachable
            used = psutil.Process(process).cpu_times()
            return float(used.user + used.system)
    except (OSError, psutil.Error):
        return 0.0


def _frequency() -> float:
    try:
        found = psutil.cpu_freq()
    except (OSError, NotImplementedError, RuntimeError, AttributeError):  # platforms fail in different ways
        return 0.0
    return float(found.current) * 1e6 if found else 0.0


def conditions(before: Reading | None, after: Reading | None) -> Conditions | None:
    """Return what the machine was like between two readings; None where nothing is known."""
    if before is None or after is None or after.at <= before.at:
        return None
    capacity = (after.at - before.at) * (os.cpu_count() or 1)
    stolen = after.stolen - before.stolen
    others = capacity - (after.idle - before.idle) - stolen - (after.own - before.own)
    return Conditions(
        others=max(0.0, others / capacity),
        stolen=stolen / capacity,
        load_average=(before.load, after.load),
        frequency_hz=(before.frequency, after.frequency),
    )


def disturbance(before: Reading | None, after: Reading | None) -> str:
    """Return what disturbed the machine between two readings; empty where nothing did, or nothing is known."""
    found = conditions(before, after)
    if found is None or before is None or after is None:
        return ""
    # Each counter is only as exact as a tick.
    tick = 1 / os.sysconf("SC_CLK_TCK") / ((after.at - before.at) * (os.cpu_count() or 1))
    began, ended = found.frequency_hz
    if found.others - 2 * tick > MOST_TAKEN:
        return f"other processes took {found.others:.0%} of the machine"
    if found.stolen - tick > MOST_TAKEN:
        return f"the host withheld {found.stolen:.0%} of the machine"
    if ended < MOST_SLOWED * began:
        return f"the processor slowed from {began / 1e9:.2f} to {ended / 1e9:.2f} GHz"
    return ""


class MachineWatch:
    """Reports what disturbed the machine since it was last asked; ``processes`` are ours."""

    def __init__(self, processes: Iterable[int]) -> None:
        self.processes = tuple(processes)
        self.before = read(self.processes)

    def including(self, process: int) -> MachineWatch:
        """Return a watch from the same time on, to which a process that was started since is ours too."""
        watch = copy.copy(self)
        watch.processes = (*self.processes, process)
        return watch

    def __call__(self) -> str:
        """Return what disturbed the machine since the call before, or since the watch was made; empty if nothing."""
        after = read(self.processes)
        found, self.before = disturbance(self.before, after), after
        return found
