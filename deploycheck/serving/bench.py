"""What a load is measured with, whether one artifact is served or two."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import scipy.special  # noqa: F401 - verdicts need it; importing it only under load would delay the client's clock
from hdrh.histogram import HdrHistogram

from deploycheck.language.spec import Load, Serve
from deploycheck.serving.client import Client
from deploycheck.serving.goals import TIMED_SAMPLES, Goal, goals_on
from deploycheck.serving.load import WARM_UP_S, LoadGenerator, WarmUp, undisturbed
from deploycheck.serving.machine_state import MachineWatch
from deploycheck.serving.process import ServerProcess, batching_options
from deploycheck.serving.protocol import Encoded, encode_request
from deploycheck.serving.scenarios import Scenario
from deploycheck.serving.signature import SIGNATURE, read_signature
from deploycheck.store import Artifact

DISTINCT_REQUESTS = 256
"""How many different requests a load has at most; they are encoded beforehand."""
HIGHEST_S = 100
"""The highest latency that a histogram can hold; higher ones are recorded as this."""
REASONS = 3
"""How many reasons of failures are named."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What a load is measured with.

    ``inputs`` are the examples that are sent, ``[n, ...]`` by input name. The load stops once each of its ``goals`` is
    decided. ``extensions`` are the files in which the artifacts' runtime may be declared; the servers' logs go to
    ``scratch``, and ``progress`` is called with what is being done.
    """

    serve: Serve
    scenario: Scenario
    inputs: Mapping[str, np.ndarray]
    goals: tuple[Goal, ...]
    extensions: tuple[Path, ...]
    scratch: Path
    progress: Callable[[str], None]

    @property
    def load(self) -> Load:
        """The load section of the spec."""
        return self.serve.load

    @property
    def is_timed(self) -> bool:
        """Whether a check is of time. A load without checks is timed: its latencies and rates are the result."""
        return not self.goals or bool(goals_on(self.goals, TIMED_SAMPLES))

    def requests(self, samples: int = 1) -> list[Encoded]:
        """Return different requests of this many examples each, ``DISTINCT_REQUESTS`` at most."""
        rows = len(next(iter(self.inputs.values())))
        starts = range(0, max(1, rows - samples + 1), samples)[:DISTINCT_REQUESTS]
        return [encode_request({key: array[at : at + samples] for key, array in self.inputs.items()}) for at in starts]

    def busy_requests(self) -> list[Encoded]:
        """Return the requests that keep a server busy in this scenario."""
        return self.requests(self.scenario.samples_per_request(self.serve.batching.max_size))

    @property
    def concurrency(self) -> int:
        """How many of them are kept in flight."""
        return self.scenario.concurrency(self.serve.batching.max_size)

    def start(self, stack: ExitStack, artifact: Artifact, variant: str) -> ServerProcess:
        """Start a server that ends with the stack."""
        self.progress(f"serve: starting {variant}")
        options = batching_options(self.serve.batching)
        server = ServerProcess(artifact.path, options, self.scratch / f"{variant}.log", self.extensions)
        return stack.enter_context(server)

    def generator(self, client: Client, servers: Iterable[ServerProcess]) -> LoadGenerator:
        """Return what sends requests by this client; it watches the machine if a check is of time."""
        watch = partial(MachineWatch, processes_of(servers)) if self.is_timed else lambda: undisturbed
        return LoadGenerator(client.failure_of, watch)

    async def warm_up(self, variant: str, client: Client, generator: LoadGenerator) -> WarmUp:
        """Warm the server up, if a check is of time."""
        if not self.is_timed:
            return WarmUp(0, steady=True)
        self.progress(f"serve: {variant}, warming up for {WARM_UP_S:g} s at most")
        return await generator.warm_up(self.requests(), client.compilations)


def model_name(artifact: Artifact) -> str:
    """Return what the server calls the artifact's model."""
    return read_signature(artifact.file(SIGNATURE)).model


def processes_of(servers: Iterable[ServerProcess]) -> tuple[int, ...]:
    """Return the ids of the processes that are ours: this one and the servers'."""
    return (os.getpid(), *(server.process.pid for server in servers if server.process))


def describe_failures(failed: Counter[str]) -> str:
    """Return how often requests failed for which reasons, the most frequent reasons by name."""
    named = failed.most_common(REASONS)
    parts = [f"{number} x {reason}" for reason, number in named]
    others = failed.total() - sum(number for _, number in named)
    return "; ".join([*parts, f"{others} for other reasons"] if others else parts)


def histogram(latencies_s: Sequence[float]) -> str:
    """Return latencies as an HDR histogram of microseconds with 3 digits, in its V2 encoding; it can be merged."""
    counts = HdrHistogram(1, HIGHEST_S * 1_000_000, 3)
    for latency in latencies_s:
        counts.record_value(max(1, round(min(latency, HIGHEST_S) * 1e6)))
    encoded: bytes = counts.encode()
    return encoded.decode()
