"""Measuring the throughput of a server that is kept busy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from deploycheck.serving.load_report import Disturbance

BLOCK_S = 0.15


@dataclass(frozen=True)
class Throughput:
    """What was seen of a server kept busy: requests answered per second in each ``BLOCK_S``.

    The rate of a block that lasted for several of them is listed as often. ``marks`` says which blocks the machine
    disturbed, or the block beside them, ``disturbed`` by what. ``lasted_s`` is how many seconds all blocks took,
    ``asked`` how many requests were answered or failed from the first to the last.
    """

    rates: tuple[float, ...]
    failures: Mapping[str, int]
    disturbed: tuple[Disturbance, ...]
    marks: tuple[bool, ...]
    lasted_s: float
    asked: int


def widened(marks: Sequence[bool]) -> tuple[bool, ...]:
    """Return the marks with the blocks before and after each marked one marked too.

    The watch misses the weak beginning and end of a disturbance, and a single block within it.
    """
    return tuple(any(marks[max(0, at - 1) : at + 2]) for at in range(len(marks)))


class ThroughputMeter:
    """Counts answers in blocks, each from one answer to the first answer that comes ``BLOCK_S`` later.

    A server answers whole batches at a time: many blocks of a fixed length would count one batch too many, or one
    too few. ``concurrency`` requests are kept in flight; times are seconds on ``clock``.
    """

    def __init__(self, concurrency: int, timeout_s: float, clock: Callable[[], float]) -> None:
        self.concurrency = concurrency
        self.timeout_s = timeout_s
        self.clock = clock
        self.answered = self.failed = 0
        self.began = clock()
        self.blocks: asyncio.Queue[tuple[int, float]] = asyncio.Queue()

    def answer(self) -> None:
        """Count an answer; it may be the last of its block."""
        self.answered += 1
        now = self.clock()
        if now - self.began >= BLOCK_S:
            self.blocks.put_nowait(self._close(now))

    def fail(self) -> None:
        """Count a request that failed."""
        self.failed += 1

    async def block(self) -> tuple[int, float]:
        """Return how many answers the next block has and how many seconds it lasted.

        It ends without an answer once every request in flight failed, or none came back for ``timeout_s``.
        """
        while True:
            try:
                return await asyncio.wait_for(self.blocks.get(), BLOCK_S)
            except TimeoutError:
                now = self.clock()
                is_failing = not self.answered and self.failed >= self.concurrency
                if self.blocks.empty() and (is_failing or now - self.began > self.timeout_s):
                    return self._close(now)

    def _close(self, now: float) -> tuple[int, float]:
        block = self.answered, now - self.began
        self.answered, self.failed, self.began = 0, 0, now
        return block
