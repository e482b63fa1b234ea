"""The client that measures a server: open-loop for latency, closed-loop for throughput.

Open-loop: requests leave on a schedule drawn beforehand, whether or not earlier ones came back, and each is timed
from when it should have left. A server that stalls can't slow down the clock it is measured by (coordinated
omission; Schroeder, Wierman and Harchol-Balter, Open Versus Closed: A Cautionary Tale, NSDI 2006).
"""

from __future__ import annotations

import asyncio
import gc
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import aiohttp
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from deploycheck.errors import DeploycheckError
from deploycheck.serving.protocol import Encoded, decode_response, encode_request

TIMEOUT_S = 10.0
LATE_S = 0.002
"""A client that leaves 1 % of its requests later than this (and than a tenth of the p99 it sees) is in doubt."""


@dataclass(frozen=True)
class Arrivals:
    """When requests leave: ``seconds`` after the start, in order; ``text`` says how they were drawn."""

    seconds: tuple[float, ...]
    text: str


@dataclass(frozen=True)
class Sent:
    """What an open-loop run saw, request by request: latency (``inf`` where it failed) and how late it left."""

    latencies_s: tuple[float, ...]
    lags_s: tuple[float, ...]
    failures: Mapping[str, int]

    @property
    def doubt(self) -> str:
        """Why high latencies could be the client's fault: it fell behind its own schedule itself.

        Latencies count from the schedule, so what the client adds makes them higher, never lower.
        """
        lag = float(np.quantile(self.lags_s, 0.99))
        finite = [latency for latency in self.latencies_s if math.isfinite(latency)]
        allowed = max(LATE_S, 0.1 * float(np.quantile(finite, 0.99))) if finite else math.inf
        if lag > allowed:
            late = f"p99 {lag * 1e3:.1f} ms late, at most {allowed * 1e3:.1f} ms allowed"
            return f"the client fell behind its own schedule: {late}"
        return ""


def arrivals(kind: str, rate: float, count: int, seed: int) -> Arrivals:
    """Draw ``count`` arrivals at ``rate`` a second: ``poisson``, or ``constant`` spacing."""
    drawn = np.random.default_rng(seed).exponential(1 / rate, count)
    gaps = np.full(count, 1 / rate) if kind == "constant" else drawn
    return Arrivals(tuple(np.cumsum(gaps).tolist()), f"{count} requests, {kind} arrivals at {rate:g} /s")


class Client:
    """A client of one model on one server."""

    def __init__(self, address: str, model: str, session: aiohttp.ClientSession) -> None:
        self.url = f"{address}/v2/models/{model}/infer"
        self.metrics_url = f"{address}/metrics"
        self.session = session

    async def ask(self, request: Encoded) -> tuple[Mapping[str, str], bytes]:
        """Send one request and return its whole reply; raise ``DeploycheckError`` for any but a 200."""
        async with self.session.post(self.url, data=request.body, headers=request.headers) as reply:
            body = await reply.read()
            if reply.status != 200:
                raise DeploycheckError(f"{reply.status}: {body[:200].decode(errors='replace')}", where=self.url)
            return reply.headers, body

    async def scrape(self) -> dict[str, float]:
        """Return the server's metrics that have no labels but the model's, by name."""
        async with self.session.get(self.metrics_url) as reply:
            text = await reply.text()
        return {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if set(sample.labels) <= {"model", "version"}
        }

    async def predict(self, inputs: Mapping[str, np.ndarray], batch: int) -> dict[str, np.ndarray]:
        """Return the outputs for all examples, asked for ``batch`` at a time."""
        count = len(next(iter(inputs.values())))
        parts = []
        for start in range(0, count, batch):
            request = encode_request({name: array[start : start + batch] for name, array in inputs.items()})
            headers, body = await self.ask(request)
            parts.append(decode_response({key.lower(): value for key, value in headers.items()}, body))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    async def open_loop(self, requests: Sequence[Encoded], schedule: Arrivals) -> Sent:
        """Send ``requests`` in turn on the schedule; return what became of each."""
        count = len(schedule.seconds)
        latencies, lags = [math.inf] * count, [0.0] * count
        failures: Counter[str] = Counter()

        async def send(index: int, due: float) -> None:
            lags[index] = time.perf_counter() - due
            failure = await _attempt(lambda: self.ask(requests[index % len(requests)]))
            if failure:
                failures[failure] += 1
            else:
                latencies[index] = time.perf_counter() - due

        with _no_collections():
            start = time.perf_counter() + LATE_S
            async with asyncio.TaskGroup() as group:
                for index, seconds in enumerate(schedule.seconds):
                    due = start + seconds
                    delay = due - time.perf_counter()
                    if delay > 0:
                        await asyncio.sleep(delay)
                    group.create_task(send(index, due))
        return Sent(tuple(latencies), tuple(lags), dict(failures))

    async def closed_loop(
        self, requests: Sequence[Encoded], concurrency: int, blocks: int, block_s: float
    ) -> tuple[tuple[float, ...], Mapping[str, int]]:
        """Keep ``concurrency`` requests in flight; return the answered a second in each block, and the failures."""
        answered = 0
        failures: Counter[str] = Counter()
        over = asyncio.Event()

        async def keep_asking(first: int) -> None:
            nonlocal answered
            index = first
            while not over.is_set():
                failure = await _attempt(lambda: self.ask(requests[index % len(requests)]))  # noqa: B023 - awaited at once
                index += concurrency
                if failure:
                    failures[failure] += 1
                    await asyncio.sleep(0)
                else:
                    answered += 1

        rates = []
        async with asyncio.TaskGroup() as group:
            for first in range(concurrency):
                group.create_task(keep_asking(first))
            await asyncio.sleep(block_s / 2)  # the first half block fills the pipeline and isn't counted
            for _ in range(blocks):
                before, began = answered, time.perf_counter()
                await asyncio.sleep(block_s)
                rates.append((answered - before) / (time.perf_counter() - began))
            over.set()
        return tuple(rates), dict(failures)


async def undisturbed(send: Callable[[], Awaitable[Sent]], attempts: int) -> tuple[Sent, ...]:
    """Send until the client kept its own schedule, ``attempts`` times at most; return every run, the last to count.

    Whether a run is taken again is decided by the client's lag, never by the latencies it saw.
    """
    taken = [await send()]
    while taken[-1].doubt and len(taken) < attempts:
        taken.append(await send())
    return tuple(taken)


async def _attempt(ask: Callable[[], Awaitable[object]]) -> str:
    """Return why asking failed, or nothing."""
    try:
        await ask()
    except DeploycheckError as error:
        return error.what
    except TimeoutError:
        return f"no answer within {TIMEOUT_S:g} s"
    except aiohttp.ClientError as error:
        return type(error).__name__
    return ""


@contextmanager
def _no_collections() -> Iterator[None]:
    """Keep the collector from pausing the client while it times."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def fast_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the event loop to measure with: uvloop's, where it is installed, as the server does."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = new_event_loop
    return factory


def session() -> aiohttp.ClientSession:
    """Return an HTTP session for any number of requests at once; use it in an ``async with``."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        auto_decompress=False,
    )
