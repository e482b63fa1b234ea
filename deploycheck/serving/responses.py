"""What a load saw of its requests, and how many requests a load sends."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from deploycheck.lazy import np
from deploycheck.serving.load_report import Disturbance

LATE_S = 0.002
"""The client is in doubt if it sends 1 % of its requests later than this, and than a tenth of the p99 it sees."""


@dataclass(frozen=True)
class Responses:
    """What a load saw, request by request in the order they left: latency (``inf`` where it failed) and lag.

    The lag is how late the client itself sent the request. ``marks`` says which requests were in flight while the
    machine was disturbed, or waited for those that were; ``disturbed`` is what disturbed it. ``failures`` are of all
    requests, of which ``sent`` is the number: a stream's query is several, and a load that is cut short has sent more
    than it saw. ``lasted_s`` is when the last of them was due, in seconds from the load's beginning.
    """

    latencies_s: tuple[float, ...] = ()
    lags_s: tuple[float, ...] = ()
    failures: Mapping[str, int] = field(default_factory=dict)
    disturbed: tuple[Disturbance, ...] = ()
    marks: tuple[bool, ...] = ()
    lasted_s: float = 0.0
    sent: int = 0

    def undisturbed(self) -> Responses:
        """Return the same of the undisturbed requests only, with the failures and disturbances of all."""
        rows = [row for row, marked in enumerate(self.marks) if not marked]
        latencies, lags = (tuple(seen[row] for row in rows) for seen in (self.latencies_s, self.lags_s))
        return replace(self, latencies_s=latencies, lags_s=lags, marks=(False,) * len(rows))

    @property
    def doubt(self) -> str:
        """Why high latencies could be the client's fault: it fell behind its own schedule. Empty where it didn't.

        Latencies count from the schedule, so the client's own delays make them higher, never lower. Disturbed requests
        are left out: they fail no model, whoever delayed them.
        """
        quiet = self.undisturbed()
        if not quiet.lags_s:
            return ""
        lag = float(np.quantile(quiet.lags_s, 0.99))
        finite = [latency for latency in quiet.latencies_s if math.isfinite(latency)]
        allowed = max(LATE_S, 0.1 * float(np.quantile(finite, 0.99))) if finite else math.inf
        if lag > allowed:
            late = f"p99 {lag * 1e3:.1f} ms late, at most {allowed * 1e3:.1f} ms allowed"
            return f"the client fell behind its own schedule: {late}"
        return ""


def never(_: object) -> bool:
    """Return False: a load that is never cut short."""
    return False


@dataclass(frozen=True)
class Budget:
    """How much is sent: until ``enough`` is true of the responses so far, at most ``most`` requests.

    The load lasts at least ``least_s`` seconds, whatever number of requests that takes. ``enough`` isn't asked in its
    first ``undecided_s`` seconds.
    """

    most: int
    enough: Callable[[Responses], bool] = never
    least_s: float = 0.0
    undecided_s: float = 0.0
