"""Recording a load: each request's latency in the order they left, and which of the requests count."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable

from deploycheck.serving.responses import Budget, Responses
from deploycheck.verdict import looks

MOST_REPEATS = 3
"""On a disturbed machine a load sends at most this many times its budget."""


class LoadRecorder:
    """What is known of a load so far: each request's latency once it is back, and which requests don't count.

    A request doesn't count if it was in flight while the machine was disturbed. Neither does one that leaves
    afterwards while more are in flight than ever were on the undisturbed machine: the server is still catching up.
    Times are seconds on ``clock``; ``disturbance`` returns what disturbed the machine since it was last called.
    """

    def __init__(self, budget: Budget, disturbance: Callable[[], str], clock: Callable[[], float]) -> None:
        self.budget = budget
        self.disturbance = disturbance
        self.clock = clock
        self.began = clock()
        self.latencies: list[float | None] = []
        self.lags: list[float] = []
        self.due: list[float] = []
        self.failures: Counter[str] = Counter()
        self.disturbed: list[str] = []
        self.excluded: set[int] = set()
        self.in_flight: set[int] = set()
        self.finished: list[int] = []  # in this interval
        self.most_in_flight = 0  # when a request left in this interval
        self.usual_in_flight: int | None = None  # the same of all undisturbed intervals
        self.catching_up = False
        self.looks = looks(budget.most)
        self.next_look: float = next(self.looks)

    def start(self, due: float | None = None) -> int:
        """Return the number of the next request, which is due at ``due``, or now."""
        row = len(self.latencies)
        self.latencies.append(None)
        self.lags.append(0.0)
        self.due.append(self.clock() if due is None else due)
        self.most_in_flight = max(self.most_in_flight, len(self.in_flight))
        is_behind = self.usual_in_flight is not None and len(self.in_flight) > self.usual_in_flight
        self.catching_up = self.catching_up and is_behind
        if self.catching_up:
            self.excluded.add(row)
        self.in_flight.add(row)
        return row

    def leave(self, row: int) -> None:
        """Record that a request leaves now: how late the client is with it."""
        self.lags[row] = self.clock() - self.due[row]

    def finish(self, row: int, *failures: str) -> None:
        """Record that a request is answered, or that it failed, for these reasons."""
        self.failures.update(failures)
        self.latencies[row] = math.inf if failures else self.clock() - self.due[row]
        self.in_flight.discard(row)
        self.finished.append(row)

    def end_interval(self) -> None:
        """End an interval now; the requests in flight during it don't count if the machine was disturbed."""
        found = self.disturbance()
        if found and (self.finished or self.in_flight):
            self.disturbed.append(found)
            self.excluded.update(self.finished, self.in_flight)
            self.catching_up = True
        elif not self.catching_up:
            self.usual_in_flight = max(self.usual_in_flight or 0, self.most_in_flight)
        self.finished.clear()
        self.most_in_flight = 0

    def known(self) -> Responses:
        """Return what is known in order, up to the first request that isn't back yet."""
        first_open = min(self.in_flight - self.excluded, default=len(self.latencies))
        return self._responses(row for row in range(first_open) if row not in self.excluded)

    def _responses(self, rows: Iterable[int]) -> Responses:
        known = [(math.inf if (latency := self.latencies[row]) is None else latency, self.lags[row]) for row in rows]
        latencies, lags = zip(*known, strict=True) if known else ((), ())
        return Responses(latencies, lags, dict(self.failures), tuple(self.disturbed))

    def is_full(self, elapsed: float) -> bool:
        """Whether the budget is spent after ``elapsed`` seconds."""
        sent, most = len(self.latencies), self.budget.most
        is_spent = sent - len(self.excluded) >= most or sent >= MOST_REPEATS * most
        return is_spent and elapsed >= self.budget.least_s

    def is_enough(self, elapsed: float) -> bool:
        """Whether what is known is enough; this is evaluated only as often as ``verdict.looks`` allows."""
        if len(self.latencies) < self.next_look or elapsed < self.budget.least_s:
            return False
        known = self.known()
        if len(known.latencies_s) < self.next_look:
            return False
        while self.next_look <= len(known.latencies_s):
            self.next_look = next(self.looks, math.inf)
        if not self.budget.enough(known):
            return False
        self.end_interval()
        return self.budget.enough(self.known())

    def responses(self) -> Responses:
        """Return what became of all requests, once every one is back."""
        self.end_interval()
        return self._responses(row for row in range(len(self.latencies)) if row not in self.excluded)
