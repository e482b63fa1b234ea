"""Generating load: open-loop for latency, closed-loop for throughput.

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
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from deploycheck.serving.client import TIMEOUT_S
from deploycheck.serving.load_report import Disturbance, joined
from deploycheck.serving.protocol import Encoded
from deploycheck.serving.recorder import LoadRecorder
from deploycheck.serving.responses import LATE_S, Budget, Responses, never
from deploycheck.serving.throughput import BLOCK_S, Throughput, ThroughputMeter, widened

INTERVAL_S = 0.2
"""How long the machine is watched at a time: a burst that takes both of two cores for 50 ms is more than a tenth."""
LOOK_S = 0.002
"""The machine is read, and the checks evaluated, this long before a request leaves, if there is time for it."""
WARM_UP_S = 10.0
WARM_UP_REQUESTS, SHORTEST_S, LONGEST_S = 50, 0.2, 1.0
"""A block of the warm-up: its requests at least, and its seconds at least and at most."""
STEADY, STEADY_S = 0.1, 0.0002
"""Three medians in a row within this share of each other, or within these seconds, are steady."""


def undisturbed() -> str:
    """Return that nothing disturbed the machine. Loads that aren't timed use it: they needn't be watched."""
    return ""


@dataclass(frozen=True)
class WarmUp:
    """How many requests were sent until the latency was steady, or until the time for it was over."""

    requests: int
    steady: bool


@dataclass(frozen=True)
class LoadGenerator:
    """Sends requests, and records what became of them.

    ``ask`` sends one request and returns why it failed, or nothing. ``watch`` starts to watch the machine and returns
    a function; each call of that returns what disturbed the machine since the call before. Times are seconds on
    ``clock``. A server that answers nothing for ``timeout_s`` is given up.
    """

    ask: Callable[[Encoded], Awaitable[str]]
    watch: Callable[[], Callable[[], str]] = lambda: undisturbed
    clock: Callable[[], float] = time.perf_counter
    timeout_s: float = TIMEOUT_S

    async def open_loop(self, requests: Sequence[Encoded], schedule: Iterator[float], budget: Budget) -> Responses:
        """Send ``requests`` in turn on the schedule, until the budget is spent; return what became of each."""
        enough = 0

        async def send(row: int) -> None:
            recorder.leave(row)
            failure = await self.ask(requests[row % len(requests)])
            recorder.finish(row, *filter(None, [failure]))

        with _no_garbage_collection():
            recorder = LoadRecorder(budget, self.watch(), self.clock)
            start = due = looked = self.clock() + LATE_S
            async with asyncio.TaskGroup() as group:
                while not recorder.is_full(due - start):
                    due = start + next(schedule)
                    await self._sleep_until(due - LOOK_S)
                    now = self.clock()
                    is_overdue = now - looked > 2 * INTERVAL_S  # at a rate that leaves no pause
                    has_time = due - now > LOOK_S / 2
                    if is_overdue or (has_time and now - looked > INTERVAL_S):
                        recorder.end_interval()
                        looked = now
                    if (is_overdue or has_time) and recorder.is_enough(due - start):
                        enough = len(recorder.known().latencies_s)
                        break
                    await self._sleep_until(due)
                    group.create_task(send(recorder.start(due)))
        return recorder.responses(enough)

    async def _sleep_until(self, when: float) -> None:
        delay = when - self.clock()
        if delay > 0:
            await asyncio.sleep(delay)

    async def one_by_one(self, requests: Sequence[Encoded], together: int, budget: Budget) -> Responses:
        """Send queries of ``together`` requests, each once the query before is answered whole (MLPerf's streams)."""
        with _no_garbage_collection():
            recorder = LoadRecorder(budget, self.watch(), self.clock)
            elapsed, interval_ends = 0.0, recorder.began + INTERVAL_S
            while not recorder.is_full(elapsed):
                query = recorder.start(together=together)
                asked = [requests[(query * together + row) % len(requests)] for row in range(together)]
                recorder.finish(query, *filter(None, await asyncio.gather(*map(self.ask, asked))))
                now = self.clock()
                elapsed = now - recorder.began
                if now >= interval_ends:
                    recorder.end_interval()
                    interval_ends = now + INTERVAL_S
                if recorder.is_enough(elapsed):
                    break
        return recorder.responses()

    async def closed_loop(
        self,
        requests: Sequence[Encoded],
        concurrency: int,
        most: int,
        enough: Callable[[Throughput], bool] = never,
        undecided_s: float = 0.0,
    ) -> Throughput:
        """Keep ``concurrency`` requests in flight; return the requests answered per second, block by block.

        It ends after ``most`` blocks, once ``enough`` is true of them, which isn't asked in the first
        ``undecided_s`` seconds, or when the server answers nothing more.
        """
        failures: Counter[str] = Counter()
        meter, over = ThroughputMeter(concurrency, self.timeout_s, self.clock), asyncio.Event()

        asked = 0

        async def keep_asking(index: int) -> None:
            nonlocal asked
            while not over.is_set():
                failure = await self.ask(requests[index % len(requests)])
                asked += 1
                index += concurrency
                if failure:
                    failures[failure] += 1
                    meter.fail()
                    await asyncio.sleep(0)
                else:
                    meter.answer()

        rates: list[float] = []
        marks: list[bool] = []
        disturbed: list[Disturbance] = []
        elapsed = 0.0

        def seen() -> Throughput:
            return Throughput(tuple(rates), dict(failures), joined(disturbed), widened(marks), elapsed, asked)

        async with asyncio.TaskGroup() as group:
            for first in range(concurrency):
                group.create_task(keep_asking(first))
            await meter.block()  # it fills the pipeline, and isn't counted
            disturbance = self.watch()
            while len(rates) < most:
                answered, lasted = await meter.block()
                if found := disturbance():
                    disturbed.append(Disturbance(elapsed, lasted, found))
                elapsed += lasted
                blocks = max(1, round(lasted / BLOCK_S))
                rates += [answered / lasted] * blocks
                marks += [bool(found)] * blocks
                if lasted > self.timeout_s or (elapsed >= undecided_s and enough(seen())):
                    break
            over.set()
        return seen()

    async def warm_up(
        self, requests: Sequence[Encoded], compilations: Callable[[], Awaitable[float]], limit_s: float = WARM_UP_S
    ) -> WarmUp:
        """Send requests one by one until nothing is compiled any more and the latency is steady.

        It ends after ``limit_s`` seconds, steady or not, at most one request later; or at once where no request is
        answered. Requests are sent one by one, not at the load's rate: at a low rate that is faster, and it doesn't
        overload a slow server.
        """
        began, sent, compiled = self.clock(), 0, -1.0
        medians: list[float] = []
        while self.clock() - began < limit_s:
            latencies = await self._block_of_warm_up(requests, began + limit_s)
            sent += len(latencies)
            if all(map(math.isinf, latencies)):
                break  # a server that answers nothing doesn't get warm
            before, compiled = compiled, await compilations()
            medians.append(float(np.median(latencies)))
            last = medians[-3:]
            is_steady = len(last) == 3 and max(last) - min(last) <= max(STEADY * min(last), STEADY_S)
            if is_steady and compiled == before:
                return WarmUp(sent, steady=True)
        return WarmUp(sent, steady=False)

    async def _block_of_warm_up(self, requests: Sequence[Encoded], ends: float) -> list[float]:
        """Return the latencies of a block of requests, at least one and none that leaves after ``ends``."""
        latencies: list[float] = []
        began = now = self.clock()
        ends = min(ends, began + LONGEST_S)
        while not latencies or (now < ends and (len(latencies) < WARM_UP_REQUESTS or now - began < SHORTEST_S)):
            failure = await self.ask(requests[len(latencies) % len(requests)])
            started, now = now, self.clock()
            latencies.append(math.inf if failure else now - started)
        return latencies


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep the garbage collector from pausing the client while it measures."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
