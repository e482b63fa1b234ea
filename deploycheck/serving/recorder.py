"""Recording a load: each request's latency in the order they left, and which of them were disturbed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

from deploycheck.serving.load_report import Disturbance, joined
from deploycheck.serving.responses import Budget, Responses
from deploycheck.verdict import looks


class LoadRecorder:
    """What is known of a load so far: each request's latency once it is back, and which requests were disturbed.

    A request was disturbed if it was in flight while the machine was, or in the interval before or after: the watch
    misses the weak beginning and end of a disturbance, and a single interval within it. So was one that leaves
    afterwards while more are in flight than ever were on the undisturbed machine: the server is still catching up.
    Times are seconds on ``clock``; ``disturbance`` returns what disturbed the machine since it was last called.
    """

    def __init__(self, budget: Budget, disturbance: Callable[[], str], clock: Callable[[], float]) -> None:
        self.budget = budget
        self.disturbance = disturbance
        self.clock = clock
        self.began = self.interval_began = clock()
        self.latencies: list[float | None] = []
        self.sent = 0
        self.lags: list[float] = []
        self.due: list[float] = []
        self.failures: Counter[str] = Counter()
        self.disturbed: list[Disturbance] = []
        self.marked: set[int] = set()
        self.in_flight: set[int] = set()
        self.finished: list[int] = []  # in this interval
        self.seen_before: set[int] = set()  # finished or in flight in the interval before
        self.was_disturbed = False
        self.most_in_flight = 0  # when a request left in this interval
        self.usual_in_flight: int | None = None  # the same of all undisturbed intervals
        self.catching_up = False
        self.looks = looks(budget.most)
        self.next_look: float = next(self.looks)

    def start(self, due: float | None = None, together: int = 1) -> int:
        """Return the number of the next request, or query of several, which is due at ``due``, or now."""
        row = len(self.latencies)
        self.sent += together
        self.latencies.append(None)
        self.lags.append(0.0)
        self.due.append(self.clock() if due is None else due)
        self.most_in_flight = max(self.most_in_flight, len(self.in_flight))
        is_behind = self.usual_in_flight is not None and len(self.in_flight) > self.usual_in_flight
        self.catching_up = self.catching_up and is_behind
        if self.catching_up:
            self.marked.add(row)
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
        """End an interval now; the requests in flight during it were disturbed if the machine was."""
        found, now = self.disturbance(), self.clock()
        if found and (self.finished or self.in_flight):
            self.disturbed.append(Disturbance(self.interval_began - self.began, now - self.interval_began, found))
            self.marked.update(self.seen_before)
            self.catching_up = True
        elif not self.catching_up:
            self.usual_in_flight = max(self.usual_in_flight or 0, self.most_in_flight)
        if found or self.was_disturbed:
            self.marked.update(self.finished, self.in_flight)
        self.was_disturbed = bool(found)
        self.seen_before = {*self.finished, *self.in_flight}
        self.finished.clear()
        self.most_in_flight = 0
        self.interval_began = now

    def known(self) -> Responses:
        """Return what is known in order, up to the first request that isn't back yet."""
        return self._first(min(self.in_flight, default=len(self.latencies)))

    def _first(self, count: int) -> Responses:
        return Responses(
            tuple(math.inf if latency is None else latency for latency in self.latencies[:count]),
            tuple(self.lags[:count]),
            dict(self.failures),
            joined(self.disturbed),
            tuple(row in self.marked for row in range(count)),
            max(0.0, self.due[count - 1] - self.began) if count else 0.0,
            self.sent,
        )

    def is_full(self, elapsed: float) -> bool:
        """Whether the budget is spent after ``elapsed`` seconds."""
        return len(self.latencies) >= self.budget.most and elapsed >= self.budget.least_s

    def is_enough(self, elapsed: float) -> bool:
        """Whether what is known is enough; this is evaluated only as often as ``verdict.looks`` allows."""
        if len(self.latencies) < self.next_look or elapsed < max(self.budget.least_s, self.budget.undecided_s):
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

    def responses(self, enough: int = 0) -> Responses:
        """Return what became of all requests, or of the first ``enough`` if that isn't 0, once every one is back."""
        self.end_interval()
        return self._first(enough or len(self.latencies))
