"""MLPerf's four scenarios: how requests arrive (MLPerf Inference rules, section 3). One class each.

Collection reads the names, so this module imports no client, no numpy and no JAX.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from deploycheck.serving.arrivals import arrivals
from deploycheck.serving.responses import Budget, Responses

if TYPE_CHECKING:
    from deploycheck.language.spec import Load
    from deploycheck.serving.load import LoadGenerator
    from deploycheck.serving.protocol import Encoded

TURN_S, FEWEST_PER_TURN, QUERIES_PER_TURN = 0.5, 20, 100
"""A turn of one of two models that are compared lasts ``TURN_S`` and has at least ``FEWEST_PER_TURN`` requests where
they arrive at a rate; elsewhere it has ``QUERIES_PER_TURN``."""
MOST_ROUNDS = 60
"""How many rounds of turns, A B B A, a comparison has at most."""


@runtime_checkable
class Scenario(Protocol):
    """How a server is asked.

    Requests are sent on the scenario's schedule; apart from that a server is kept busy by ``concurrency`` requests
    in flight. ``max_size`` is the largest batch of the server.
    """

    @property
    def name(self) -> str:
        """What a spec calls it."""
        ...

    @property
    def fields(self) -> frozenset[str]:
        """Which of ``arrivals`` and ``rate`` of a spec's ``load`` the scenario uses."""
        ...

    @property
    def unmeasured(self) -> frozenset[str]:
        """The metrics that can't be measured in the scenario."""
        ...

    async def send(
        self, generator: LoadGenerator, requests: Sequence[Encoded], load: Load, budget: Budget, turn: int = 0
    ) -> Responses:
        """Send requests as they arrive in this scenario, until the budget is spent; none where none arrive.

        Each ``turn`` draws other arrivals.
        """
        ...

    def schedule(self, load: Load, count: int) -> str:
        """Return in words how ``count`` requests arrive."""
        ...

    def requests_per_turn(self, load: Load) -> int:
        """Return how many requests, or queries, one of two models is sent before it is the other's turn."""
        ...

    def samples_per_request(self, max_size: int) -> int:
        """Return how many examples a request has."""
        ...

    def concurrency(self, max_size: int) -> int:
        """Return how many requests are kept in flight to keep a server busy."""
        ...

    def saturation(self, max_size: int) -> str:
        """Return in words what is kept in flight to keep a server busy."""
        ...


@dataclass(frozen=True)
class _SingleRequests:
    """What the scenarios share whose requests have one example each."""

    def samples_per_request(self, max_size: int) -> int:
        """Return 1."""
        del max_size
        return 1

    def concurrency(self, max_size: int) -> int:
        """Return two full batches: one that runs, and one that waits for it."""
        return 2 * max_size

    def saturation(self, max_size: int) -> str:
        """Return the number of requests."""
        return f"{self.concurrency(max_size)} requests"


@dataclass(frozen=True)
class Server(_SingleRequests):
    """Requests arrive on a schedule, whether or not earlier ones were answered."""

    name: str = "server"
    fields: frozenset[str] = frozenset({"arrivals", "rate"})
    unmeasured: frozenset[str] = frozenset()

    async def send(
        self, generator: LoadGenerator, requests: Sequence[Encoded], load: Load, budget: Budget, turn: int = 0
    ) -> Responses:
        """Send requests at the load's rate."""
        return await generator.open_loop(requests, arrivals(load.arrivals, load.rate, load.seed + turn), budget)

    def schedule(self, load: Load, count: int) -> str:
        """Return the number of requests, their arrivals and their rate."""
        return f"{count} requests, {load.arrivals} arrivals at {load.rate:g} /s"

    def requests_per_turn(self, load: Load) -> int:
        """Return the requests of ``TURN_S``."""
        return max(FEWEST_PER_TURN, round(load.rate * TURN_S))


@dataclass(frozen=True)
class SingleStream(_SingleRequests):
    """Each request is sent once the one before is answered."""

    name: str = "single_stream"
    fields: frozenset[str] = frozenset()
    unmeasured: frozenset[str] = frozenset()
    together: int = 1

    async def send(
        self, generator: LoadGenerator, requests: Sequence[Encoded], load: Load, budget: Budget, turn: int = 0
    ) -> Responses:
        """Send queries one after the other."""
        del load, turn
        return await generator.one_by_one(requests, self.together, budget)

    def schedule(self, load: Load, count: int) -> str:
        """Return the number of requests."""
        del load
        return f"{count} requests, one after the other"

    def requests_per_turn(self, load: Load) -> int:
        """Return ``QUERIES_PER_TURN``."""
        del load
        return QUERIES_PER_TURN


@dataclass(frozen=True)
class MultiStream(SingleStream):
    """Each query, of several requests at once, is sent once the one before is answered whole."""

    name: str = "multi_stream"
    together: int = 8

    def schedule(self, load: Load, count: int) -> str:
        """Return the number of queries, and the requests in each."""
        del load
        return f"{count} queries of {self.together} requests, one query after the other"


@dataclass(frozen=True)
class Offline:
    """All samples are there at once: nothing arrives, and the server is kept busy by full batches."""

    name: str = "offline"
    fields: frozenset[str] = frozenset()
    unmeasured: frozenset[str] = frozenset({"latency", "error_rate"})

    async def send(
        self, generator: LoadGenerator, requests: Sequence[Encoded], load: Load, budget: Budget, turn: int = 0
    ) -> Responses:
        """Send nothing."""
        del generator, requests, load, budget, turn
        return Responses()

    def schedule(self, load: Load, count: int) -> str:
        """Return that there is no schedule."""
        del load, count
        return "all samples at once"

    def requests_per_turn(self, load: Load) -> int:
        """Return 0: nothing arrives."""
        del load
        return 0

    def samples_per_request(self, max_size: int) -> int:
        """Return a full batch."""
        return max_size

    def concurrency(self, max_size: int) -> int:
        """Return the number of batches in flight."""
        del max_size
        return 4

    def saturation(self, max_size: int) -> str:
        """Return what the batches are of."""
        del max_size
        return "batches of all samples"


SCENARIOS: tuple[Scenario, ...] = (Server(), SingleStream(), MultiStream(), Offline())
