"""The rate of a server that is kept busy, however it answers; in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from deploycheck.serving.load import LoadGenerator
from deploycheck.serving.protocol import Encoded
from deploycheck.serving.throughput import BLOCK_S, Throughput, ThroughputMeter
from tests.serving.virtual_time import VirtualClock, generate, run_in_virtual_time

REQUESTS = [Encoded(b"%d" % index) for index in range(8)]


def test_a_block_ends_with_the_first_answer_after_its_time_and_the_next_begins_there() -> None:
    async def use(clock: VirtualClock) -> Sequence[tuple[int, float]]:
        meter = ThroughputMeter(2, 10.0, clock)
        for step in (0.1, 0.1, 0.05, 0.05, 0.3):
            clock.advance(step)
            meter.answer()
        return [await meter.block(), await meter.block()]

    assert run_in_virtual_time(use) == [(2, pytest.approx(0.2)), (3, pytest.approx(0.4))]


def test_a_block_of_which_every_request_fails_ends_without_an_answer() -> None:
    async def use(clock: VirtualClock) -> tuple[int, float]:
        meter = ThroughputMeter(2, 10.0, clock)
        meter.fail()
        meter.fail()
        return await meter.block()

    answered, lasted = run_in_virtual_time(use)
    assert answered == 0
    assert lasted == pytest.approx(BLOCK_S)


@pytest.mark.parametrize(("batch_s", "spread_s"), [(0.04, 0.0), (0.1, 0.0), (0.25, 0.0), (0.1, 0.03), (0.25, 0.03)])
def test_a_server_that_answers_in_batches_has_the_rate_it_has(batch_s: float, spread_s: float) -> None:
    """However many whole batches a block has, and however long their answers take to arrive."""
    batch = 4

    async def use(generator: LoadGenerator) -> Throughput:
        server = asyncio.create_task(serve())
        try:
            return await generator.closed_loop(REQUESTS, 2 * batch, 8)
        finally:
            server.cancel()

    async def serve() -> None:
        while True:
            answers = [await queue.get()]
            answers += [queue.get_nowait() for _ in range(min(batch - 1, queue.qsize()))]
            await asyncio.sleep(batch_s - spread_s)
            for answer in answers:
                await asyncio.sleep(spread_s / batch)
                answer.set_result("")

    async def answer(_: VirtualClock, __: Encoded) -> str:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        queue.put_nowait(future)
        return await future

    queue: asyncio.Queue[asyncio.Future[str]] = asyncio.Queue()
    measured = generate(answer, use)
    assert np.mean(measured.rates) == pytest.approx(batch / batch_s, rel=0.05)
    assert max(measured.rates) < 1.1 * min(measured.rates)


def test_a_stall_counts_for_as_long_as_it_lasts_and_once() -> None:
    """Half a second without an answer, every second: the mean over time is that of the server."""
    answered = 0

    async def answer(clock: VirtualClock, _: Encoded) -> str:
        nonlocal answered
        await asyncio.sleep(0.01 if clock() % 1.0 < 0.5 else 1.01 - clock() % 1.0)
        answered += 1
        return ""

    async def use(generator: LoadGenerator) -> tuple[Throughput, float]:
        return await generator.closed_loop(REQUESTS, 2, 26), generator.clock()

    measured, lasted = generate(answer, use)
    assert np.mean(measured.rates) == pytest.approx(answered / lasted, rel=0.25)


def test_a_server_that_hangs_is_given_up() -> None:
    answers = iter(range(50))

    async def answer(_: VirtualClock, __: Encoded) -> str:
        await asyncio.sleep(0.02 if next(answers, None) is not None else 1.5)
        return ""

    rates = generate(answer, lambda generator: generator.closed_loop(REQUESTS, 2, 200), timeout_s=0.4).rates
    assert len(rates) < 20
    assert rates[-1] < rates[0] / 2


async def quick(_: VirtualClock, __: Encoded) -> str:
    await asyncio.sleep(0.02)
    return ""


async def failing(_: VirtualClock, __: Encoded) -> str:
    await asyncio.sleep(0.02)
    return "400: bad"


def test_the_closed_loop_gives_a_rate_for_each_block() -> None:
    measured = generate(quick, lambda generator: generator.closed_loop(REQUESTS, 4, 3))
    assert measured.rates == pytest.approx([200] * 3)
    assert measured.asked >= 3 * BLOCK_S * 200
    assert measured.failures == {}


def test_the_closed_loop_ends_as_soon_as_it_is_enough() -> None:
    measured = generate(
        quick, lambda generator: generator.closed_loop(REQUESTS, 4, 50, lambda seen: len(seen.rates) == 2)
    )
    assert len(measured.rates) == 2


def test_the_closed_loop_counts_failures_and_not_as_answers() -> None:
    measured = generate(failing, lambda generator: generator.closed_loop(REQUESTS, 2, 2))
    assert set(measured.rates) == {0.0}
    assert set(measured.failures) == {"400: bad"}
    assert measured.asked >= sum(measured.failures.values()) > 0


def test_a_block_in_which_the_machine_was_disturbed_is_marked_and_not_measured_again() -> None:
    found = iter(["", "", "another program", "", ""])
    measured = generate(
        quick, lambda generator: generator.closed_loop(REQUESTS, 2, 5), watch=lambda: lambda: next(found)
    )
    assert measured.marks == (False, True, True, True, False), "the blocks beside it are doubtful too"
    assert measured.rates == pytest.approx([100] * 5)
    (disturbed,) = measured.disturbed
    assert (disturbed.what, disturbed.at_s) == ("another program", pytest.approx(2 * disturbed.lasted_s))


def test_a_machine_that_is_never_quiet_ends_it_all_the_same() -> None:
    measured = generate(
        quick, lambda generator: generator.closed_loop(REQUESTS, 2, 3), watch=lambda: lambda: "another program"
    )
    assert measured.marks == (True,) * 3
    assert measured.disturbed[0].lasted_s == pytest.approx(3 * BLOCK_S, rel=0.1)
    assert len(measured.disturbed) == 1
