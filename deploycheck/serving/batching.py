"""The queue between requests and the model.

Requests are validated before they get here, so one can't spoil another's batch; if a batch fails all the same,
each of its requests is run alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from deploycheck.serving.metrics import Metrics
from deploycheck.serving.protocol import BadRequest
from deploycheck.serving.runtimes import Engine

Tensors = Mapping[str, np.ndarray]


def batch_sizes(largest: int) -> tuple[int, ...]:
    """Return the batch sizes that are compiled: the powers of two up to ``largest``, and ``largest``."""
    sizes = [1]
    while sizes[-1] * 2 < largest:
        sizes.append(sizes[-1] * 2)
    return (*sizes, largest) if largest > 1 else (1,)


@dataclass(frozen=True)
class _Waiting:
    inputs: Tensors
    count: int
    answer: asyncio.Future[Tensors]
    since: float


class Batcher:
    """Runs requests together, up to the engine's largest batch.

    The first request of a batch waits at most ``max_delay_s``, and only while others are arriving: a single request
    is run at once. At most ``max_queue`` requests wait; further ones are refused with 503.
    """

    def __init__(self, engine: Engine, max_delay_s: float, max_queue: int, metrics: Metrics) -> None:
        self.engine = engine
        self.largest = engine.sizes[-1]
        self.max_delay_s = max_delay_s
        self.metrics = metrics
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(max_queue)
        self._held: _Waiting | None = None
        self._arriving = 0
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="model")

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Count a request as arriving, from its headers until it is submitted or refused."""
        self._arriving += 1
        try:
            yield
        finally:
            self._arriving -= 1

    async def submit(self, inputs: Tensors, count: int) -> Tensors:
        """Return the outputs for ``count`` examples, ``[count, ...]`` each."""
        waiting = _Waiting(inputs, count, asyncio.get_running_loop().create_future(), time.monotonic())
        try:
            self._queue.put_nowait(waiting)
        except asyncio.QueueFull:
            raise BadRequest("the server is busy: too many requests are waiting", 503, "rejected") from None
        self.metrics.pending.inc()
        return await waiting.answer

    async def run(self) -> None:
        """Answer requests until cancelled."""
        while True:
            batch = await self._gather()
            started = time.monotonic()
            for waiting in batch:
                self.metrics.queue_seconds.observe(started - waiting.since)
            try:
                await self._answer(batch)
            except Exception as error:
                if len(batch) == 1:
                    _fail(batch[0], error)
                else:
                    await self._one_by_one(batch)

    async def _gather(self) -> list[_Waiting]:
        """Wait for a first request, then for as many as fit into the batch before its delay is over."""
        batch: list[_Waiting] = []
        total = 0
        deadline = None
        while total < self.largest:
            waiting = await self._next(deadline)
            if waiting is None:
                break
            if waiting.answer.cancelled():
                continue
            if total + waiting.count > self.largest:
                self._held = waiting
                break
            batch.append(waiting)
            total += waiting.count
            deadline = deadline or asyncio.get_running_loop().time() + self.max_delay_s
        return batch

    async def _next(self, deadline: float | None) -> _Waiting | None:
        """Return the next request, or None once the deadline is over; without a deadline, wait for one."""
        if self._held is not None:
            held, self._held = self._held, None
            return held
        try:
            if deadline is None:
                waiting = await self._queue.get()
                await asyncio.sleep(0)  # let requests that arrived at the same time be queued too
            elif not self._queue.empty():
                waiting = self._queue.get_nowait()
            elif not self._arriving:
                return None
            else:
                async with asyncio.timeout_at(deadline):
                    waiting = await self._queue.get()
        except TimeoutError:
            return None
        self.metrics.pending.dec()
        return waiting

    async def _answer(self, batch: list[_Waiting]) -> None:
        together = {
            name: np.concatenate([waiting.inputs[name] for waiting in batch]) if len(batch) > 1 else array
            for name, array in batch[0].inputs.items()
        }
        started = time.monotonic()
        outputs = await asyncio.get_running_loop().run_in_executor(self._executor, self.engine.run, together)
        self.metrics.compute_seconds.observe(time.monotonic() - started)
        total = sum(waiting.count for waiting in batch)
        self.metrics.executions.inc()
        self.metrics.samples.inc(total)
        self.metrics.batch_size.observe(total)
        start = 0
        for waiting in batch:
            rows = slice(start, start + waiting.count)
            start += waiting.count
            if not waiting.answer.done():
                waiting.answer.set_result({name: array[rows] for name, array in outputs.items()})

    async def _one_by_one(self, batch: list[_Waiting]) -> None:
        for waiting in batch:
            try:
                await self._answer([waiting])
            except Exception as error:
                _fail(waiting, error)


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
