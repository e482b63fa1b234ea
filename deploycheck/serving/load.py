"""The client that measures a server: open-loop for latency, closed-loop for throughput.

Open-loop: requests leave on a schedule drawn beforehand, whether or not earlier ones came back, and each is timed
from when it should have left. A server that stalls can't slow down the clock it is measured by (coordinated
omission; Schroeder, Wierman and Harchol-Balter, Open Versus Closed: A Cautionary Tale, NSDI 2006).
"""

from __future__ import annotations

import asyncio
import functools
import gc
import math
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import aiohttp
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from deploycheck.errors import DeploycheckError
from deploycheck.serving import quiet
from deploycheck.serving.protocol import Encoded, decode_response, encode_request
from deploycheck.serving.taken import LATE_S, TIMES, Amount, Sent, Taken, never

TIMEOUT_S = 10.0
COMPILATIONS = "deploycheck_inference_compilations_total"
STRETCH_S = 0.2
"""How long the machine is watched at a time: a burst that takes both of two cores for 50 ms is more than a tenth."""
BLOCK_S = 0.15
LOOK_S = 0.002
"""How long before a request leaves a look is taken, if the one before it left earlier than that."""
WARM_UP_REQUESTS, WARM_UP_BLOCKS = 50, 20
STEADY, STEADY_S = 0.1, 0.0002
"""Three medians in a row within this share of each other, or within these seconds, are steady."""


def arrivals(kind: str, rate: float, seed: int) -> Iterator[float]:
    """Yield when requests leave, in seconds from the start: ``poisson``, or ``constant`` spacing. Endless."""
    random, due = np.random.default_rng(seed), 0.0
    while True:
        due += 1 / rate if kind == "constant" else random.exponential(1 / rate)
        yield due


@dataclass(frozen=True)
class Sustained:
    """What a server kept busy came to: requests answered a second in each ``BLOCK_S`` undisturbed.

    A block that lasted for several of them stands here as often.
    """

    rates: tuple[float, ...]
    failures: Mapping[str, int]
    disturbed: tuple[str, ...]


@dataclass(frozen=True)
class WarmUp:
    """How many requests it took until the latency was steady, or was given up on."""

    requests: int
    steady: bool


class Pace:
    """Counts the answers of a server kept busy in blocks, each from an answer to the first that is ``BLOCK_S`` later.

    A server answers whole batches at a time: of blocks of fixed length many hold one batch too many, or too few.
    """

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.answered = self.failed = 0
        self.began = time.perf_counter()
        self.blocks: asyncio.Queue[tuple[int, float]] = asyncio.Queue()

    def answer(self) -> None:
        """Count an answer; it may be the last of its block."""
        self.answered += 1
        now = time.perf_counter()
        if now - self.began >= BLOCK_S:
            self.blocks.put_nowait(self._close(now))

    def fail(self) -> None:
        """Count a request that failed."""
        self.failed += 1

    async def block(self) -> tuple[int, float]:
        """Return how many answers the next block holds and how many seconds it lasted.

        It ends without an answer once every request in flight failed, or none came back for ``TIMEOUT_S``.
        """
        while True:
            try:
                return await asyncio.wait_for(self.blocks.get(), BLOCK_S)
            except TimeoutError:
                now = time.perf_counter()
                is_failing = not self.answered and self.failed >= self.concurrency
                if self.blocks.empty() and (is_failing or now - self.began > TIMEOUT_S):
                    return self._close(now)

    def _close(self, now: float) -> tuple[int, float]:
        block = self.answered, now - self.began
        self.answered, self.failed, self.began = 0, 0, now
        return block


class Client:
    """A client of one model on one server, whose ``processes`` count as ours where the machine is watched."""

    def __init__(self, address: str, model: str, session: aiohttp.ClientSession, processes: Sequence[int] = ()) -> None:
        self.url = f"{address}/v2/models/{model}/infer"
        self.metrics_url = f"{address}/metrics"
        self.session = session
        self.processes = (os.getpid(), *processes)

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

    async def open_loop(self, requests: Sequence[Encoded], schedule: Iterator[float], amount: Amount) -> Sent:
        """Send ``requests`` in turn on the schedule, until it is enough; return what became of each."""
        enough = 0

        async def send(row: int, due: float) -> None:
            taken.lags[row] = time.perf_counter() - due
            failure = await _attempt(lambda: self.ask(requests[row % len(requests)]))
            if failure:
                taken.failures[failure] += 1
            taken.land(row, math.inf if failure else time.perf_counter() - due)

        with _no_collections():
            taken = Taken(amount, self.processes)
            start = due = looked = time.perf_counter() + LATE_S
            async with asyncio.TaskGroup() as group:
                while not taken.is_full(due - start):
                    due = start + next(schedule)
                    await _sleep_until(due - LOOK_S)
                    now = time.perf_counter()
                    is_pressing = now - looked > 2 * STRETCH_S  # at a rate that leaves no pause
                    has_time = due - now > LOOK_S / 2
                    if is_pressing or (has_time and now - looked > STRETCH_S):
                        taken.close_stretch()
                        looked = now
                    if (is_pressing or has_time) and taken.is_enough(due - start):
                        enough = len(taken.known().latencies_s)
                        break
                    await _sleep_until(due)
                    group.create_task(send(taken.leave(), due))
        sent = taken.sent()
        return sent.first(enough) if enough else sent

    async def one_by_one(self, requests: Sequence[Encoded], together: int, amount: Amount) -> Sent:
        """Send queries of ``together`` requests, each as soon as the last is back whole (MLPerf's streams)."""
        with _no_collections():
            taken = Taken(amount, self.processes)
            began = end = time.perf_counter()
            stretch_ends = began + STRETCH_S
            while not taken.is_full(end - began):
                query, start = taken.leave(), time.perf_counter()
                asked = [requests[(query * together + row) % len(requests)] for row in range(together)]
                failures = await asyncio.gather(*(_attempt(functools.partial(self.ask, each)) for each in asked))
                end = time.perf_counter()
                taken.failures.update(filter(None, failures))
                taken.land(query, math.inf if any(failures) else end - start)
                if end >= stretch_ends:
                    taken.close_stretch()
                    stretch_ends = end + STRETCH_S
                if taken.is_enough(end - began):
                    break
        return taken.sent()

    async def closed_loop(
        self,
        requests: Sequence[Encoded],
        concurrency: int,
        most: int,
        enough: Callable[[tuple[float, ...]], bool] = never,
    ) -> Sustained:
        """Keep ``concurrency`` requests in flight; return the requests answered a second, block by block.

        It ends after ``most`` blocks, once ``enough`` says so of their rates, or when the server answers nothing more.
        """
        failures: Counter[str] = Counter()
        pace, over = Pace(concurrency), asyncio.Event()

        async def keep_asking(first: int) -> None:
            index = first
            while not over.is_set():
                failure = await _attempt(lambda: self.ask(requests[index % len(requests)]))  # noqa: B023 - awaited at once
                index += concurrency
                if failure:
                    failures[failure] += 1
                    pace.fail()
                    await asyncio.sleep(0)
                else:
                    pace.answer()

        rates: list[float] = []
        disturbed: list[str] = []
        async with asyncio.TaskGroup() as group:
            for first in range(concurrency):
                group.create_task(keep_asking(first))
            await pace.block()  # it fills the pipeline, and isn't counted
            before = quiet.read(self.processes)
            while len(rates) < most and len(rates) + len(disturbed) < TIMES * most:
                answered, lasted = await pace.block()
                after = quiet.read(self.processes)
                what, before = quiet.disturbance(before, after), after
                if what:
                    disturbed.append(what)
                    continue
                rates += [answered / lasted] * max(1, round(lasted / BLOCK_S))
                if lasted > TIMEOUT_S or enough(tuple(rates)):
                    break
            over.set()
        return Sustained(tuple(rates), dict(failures), tuple(disturbed))

    async def warm_up(self, requests: Sequence[Encoded], rate: float) -> WarmUp:
        """Ask until nothing is compiled any more and the latency is steady; say so where it never is."""
        medians: list[float] = []
        compiled = -1.0
        for block in range(1, WARM_UP_BLOCKS + 1):
            sent = await self.open_loop(requests, arrivals("constant", rate, 0), Amount(WARM_UP_REQUESTS))
            before, compiled = compiled, (await self.scrape()).get(COMPILATIONS, 0.0)
            medians.append(float(np.median(sent.latencies_s)) if sent.latencies_s else math.inf)
            last = medians[-3:]
            steady = len(last) == 3 and max(last) - min(last) <= max(STEADY * min(last), STEADY_S)
            if steady and compiled == before:
                return WarmUp(block * WARM_UP_REQUESTS, steady=True)
        return WarmUp(WARM_UP_BLOCKS * WARM_UP_REQUESTS, steady=False)


async def _sleep_until(when: float) -> None:
    delay = when - time.perf_counter()
    if delay > 0:
        await asyncio.sleep(delay)


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
