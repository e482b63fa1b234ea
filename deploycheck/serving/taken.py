"""What a load saw: each request's latency in the order they left, and which of them count."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from deploycheck.serving import quiet
from deploycheck.verdict import looks

TIMES = 3
"""Of a load on a disturbed machine, this many times what was meant is sent at most."""
LATE_S = 0.002
"""A client that leaves 1 % of its requests later than this (and than a tenth of the p99 it sees) is in doubt."""


@dataclass(frozen=True)
class Sent:
    """What a load saw, request by request in the order they left: latency (``inf`` where it failed) and lag.

    The lag is how late the client itself let it leave. What was sent while the machine was disturbed is left out
    of both, and counted in ``disturbed``, a line for each time; ``failures`` are of all.
    """

    latencies_s: tuple[float, ...]
    lags_s: tuple[float, ...]
    failures: Mapping[str, int]
    disturbed: tuple[str, ...] = ()

    def first(self, count: int) -> Sent:
        """Return the same of the first ``count`` requests alone, the failures and disturbances of all."""
        return replace(self, latencies_s=self.latencies_s[:count], lags_s=self.lags_s[:count])

    @property
    def doubt(self) -> str:
        """Why high latencies could be the client's fault: it fell behind its own schedule itself.

        Latencies count from the schedule, so what the client adds makes them higher, never lower.
        """
        if not self.lags_s:
            return ""
        lag = float(np.quantile(self.lags_s, 0.99))
        finite = [latency for latency in self.latencies_s if math.isfinite(latency)]
        allowed = max(LATE_S, 0.1 * float(np.quantile(finite, 0.99))) if finite else math.inf
        if lag > allowed:
            late = f"p99 {lag * 1e3:.1f} ms late, at most {allowed * 1e3:.1f} ms allowed"
            return f"the client fell behind its own schedule: {late}"
        return ""


def never(_: object) -> bool:
    """Send all there is to send."""
    return False


@dataclass(frozen=True)
class Amount:
    """How much is sent: until ``enough`` says so of what was seen so far, ``most`` requests undisturbed at most.

    It lasts ``least_s`` seconds at least, whatever number of requests that takes. Where the machine is disturbed more
    is sent in its place, up to ``TIMES`` as much.
    """

    most: int
    enough: Callable[[Sent], bool] = never
    least_s: float = 0.0


class Taken:
    """What is known of a load so far: each request's latency once it is back, and which of them don't count.

    One doesn't count that was on its way while the machine was disturbed, nor one that leaves afterwards while more
    are on their way than ever were on a quiet machine: the server is still catching up.
    """

    def __init__(self, amount: Amount, processes: Sequence[int]) -> None:
        self.amount = amount
        self.processes = processes
        self.latencies: list[float | None] = []
        self.lags: list[float] = []
        self.failures: Counter[str] = Counter()
        self.disturbed: list[str] = []
        self.dropped: set[int] = set()
        self.flying: set[int] = set()
        self.landed: list[int] = []  # in this stretch
        self.waiting = 0  # the most that were on their way when one left in this stretch
        self.usual: int | None = None  # and in all that were not disturbed
        self.catching_up = False
        self.before = quiet.read(processes)
        self.looks = looks(amount.most)
        self.next_look: float = next(self.looks)

    def leave(self) -> int:
        """Return the number of the next request, which leaves now."""
        row = len(self.latencies)
        self.latencies.append(None)
        self.lags.append(0.0)
        self.waiting = max(self.waiting, len(self.flying))
        self.catching_up = self.catching_up and self.usual is not None and len(self.flying) > self.usual
        if self.catching_up:
            self.dropped.add(row)
        self.flying.add(row)
        return row

    def land(self, row: int, latency: float) -> None:
        """Take down what became of a request."""
        self.latencies[row] = latency
        self.flying.discard(row)
        self.landed.append(row)

    def close_stretch(self) -> None:
        """End a stretch of time here; what was on its way in it doesn't count if something disturbed the machine."""
        after = quiet.read(self.processes)
        what = quiet.disturbance(self.before, after)
        if what and (self.landed or self.flying):
            self.disturbed.append(what)
            self.dropped.update(self.landed, self.flying)
            self.catching_up = True
        elif not self.catching_up:
            self.usual = max(self.usual or 0, self.waiting)
        self.landed.clear()
        self.before, self.waiting = after, 0

    def known(self) -> Sent:
        """Return what is known in order, up to the first request that isn't back yet."""
        first_flying = min(self.flying - self.dropped, default=len(self.latencies))
        return self._of(row for row in range(first_flying) if row not in self.dropped)

    def _of(self, rows: Iterable[int]) -> Sent:
        taken = [(math.inf if (back := self.latencies[row]) is None else back, self.lags[row]) for row in rows]
        latencies, lags = zip(*taken, strict=True) if taken else ((), ())
        return Sent(latencies, lags, dict(self.failures), tuple(self.disturbed))

    def is_full(self, elapsed: float) -> bool:
        """Whether as much was sent as may be."""
        sent, most = len(self.latencies), self.amount.most
        return (sent - len(self.dropped) >= most or sent >= TIMES * most) and elapsed >= self.amount.least_s

    def is_enough(self, elapsed: float) -> bool:
        """Whether what is known by now is enough; looked at as often as ``looks`` says."""
        if len(self.latencies) < self.next_look or elapsed < self.amount.least_s:
            return False
        known = self.known()
        if len(known.latencies_s) < self.next_look:
            return False
        while self.next_look <= len(known.latencies_s):
            self.next_look = next(self.looks, math.inf)
        if not self.amount.enough(known):
            return False
        self.close_stretch()
        return self.amount.enough(self.known())

    def sent(self) -> Sent:
        """Return what became of it, once all of it is back."""
        self.close_stretch()
        return self._of(row for row in range(len(self.latencies)) if row not in self.dropped)
