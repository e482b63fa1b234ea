"""Loads against servers made up for the purpose, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import numpy as np
import pytest

from deploycheck.serving.arrivals import arrivals
from deploycheck.serving.load import SHORTEST_S, WARM_UP_REQUESTS, WARM_UP_S, LoadGenerator, WarmUp
from deploycheck.serving.protocol import Encoded
from deploycheck.serving.responses import Budget, Responses
from tests.serving.virtual_time import VirtualClock, generate

FREEZE_S = 0.4
REQUESTS = [Encoded(b"%d" % index) for index in range(8)]
Answer = Callable[[VirtualClock, Encoded], Awaitable[str]]


def answering_in(seconds: float) -> Answer:
    async def answer(_: VirtualClock, __: Encoded) -> str:
        await asyncio.sleep(seconds)
        return ""

    return answer


def open_loop(
    answer: Answer, budget: Budget, rate: float = 100, kind: str = "constant", watch: Callable[[], str] = lambda: ""
) -> Responses:
    return generate(
        answer, lambda generator: generator.open_loop(REQUESTS, arrivals(kind, rate, 0), budget), lambda: watch
    )


def one_by_one(answer: Answer, budget: Budget, together: int = 1) -> Responses:
    return generate(answer, lambda generator: generator.one_by_one(REQUESTS, together, budget))


def reporting(*disturbances: str) -> Callable[[], str]:
    """Return a watch that reports these disturbances, one per interval, and none afterwards."""
    return itertools.chain(disturbances, itertools.repeat("")).__next__


def test_each_request_leaves_on_the_schedule_and_counts_until_it_is_answered() -> None:
    left: list[float] = []

    async def answer(clock: VirtualClock, _: Encoded) -> str:
        left.append(clock())
        await asyncio.sleep(0.05)
        return ""

    seen = open_loop(answer, Budget(50))
    assert np.diff(left) == pytest.approx([0.01] * 49)
    assert seen.latencies_s == pytest.approx([0.05] * 50)
    assert seen.lags_s == pytest.approx([0.0] * 50)
    assert seen.failures == {}


def test_a_freeze_of_the_server_shows_in_the_tail_and_not_in_the_median() -> None:
    async def answer(clock: VirtualClock, _: Encoded) -> str:
        frozen = clock() % 2.0
        await asyncio.sleep(0.001 + (0.5 + FREEZE_S - frozen if 0.5 <= frozen < 0.5 + FREEZE_S else 0.0))
        return ""

    latencies = np.array(open_loop(answer, Budget(200), kind="poisson").latencies_s)
    assert np.quantile(latencies, 0.99) > FREEZE_S / 2
    # Each request that was due in the freeze counts from when it was due: a fifth of all, not one per connection.
    assert (latencies > FREEZE_S / 4).sum() >= 15
    assert np.median(latencies) < FREEZE_S / 4


def test_a_stall_of_the_client_counts_too_and_is_called_the_clients_fault() -> None:
    stalls = iter([FREEZE_S])

    async def answer(clock: VirtualClock, request: Encoded) -> str:
        if request == REQUESTS[5]:
            clock.advance(next(stalls, 0.0))  # the event loop does nothing else meanwhile
        await asyncio.sleep(0.001)
        return ""

    seen = open_loop(answer, Budget(50))
    assert max(seen.lags_s) > FREEZE_S / 2
    assert all(latency >= lag for latency, lag in zip(seen.latencies_s, seen.lags_s, strict=True))
    assert "fell behind its own schedule" in seen.doubt


def test_requests_that_fail_are_infinitely_late_and_counted_by_reason() -> None:
    async def answer(_: VirtualClock, request: Encoded) -> str:
        return "" if int(request.body) % 2 == 0 else f"400: {request.body.decode()}"

    seen = open_loop(answer, Budget(8))
    assert [math.isinf(latency) for latency in seen.latencies_s] == [False, True] * 4
    assert seen.failures == {f"400: {index}": 1 for index in (1, 3, 5, 7)}


def test_a_load_ends_as_soon_as_it_is_enough() -> None:
    asked: list[int] = []

    def enough(seen: Responses) -> bool:
        asked.append(len(seen.latencies_s))
        return len(seen.latencies_s) >= 20

    seen = open_loop(answering_in(0.001), Budget(1000, enough))
    assert 20 <= len(seen.latencies_s) <= 25
    assert asked == sorted(asked)


def test_a_load_lasts_at_least_as_long_as_it_is_asked_to() -> None:
    seen = open_loop(answering_in(0.001), Budget(1000, lambda _: True, least_s=0.5))
    assert 49 <= len(seen.latencies_s) <= 51


def test_it_sends_more_than_the_budget_where_it_has_to_last() -> None:
    assert len(open_loop(answering_in(0.001), Budget(10, least_s=0.5)).latencies_s) in (50, 51)
    assert len(one_by_one(answering_in(0.1), Budget(10, least_s=2.0)).latencies_s) in (20, 21)


def test_what_was_sent_while_the_machine_was_disturbed_is_marked_and_not_sent_again() -> None:
    sent: list[Encoded] = []

    async def answer(_: VirtualClock, request: Encoded) -> str:
        sent.append(request)
        await asyncio.sleep(0.001)
        return ""

    seen = open_loop(answer, Budget(160), watch=reporting("", "", "another program", "another program"))
    assert [one.what for one in seen.disturbed] == ["another program"]
    assert seen.disturbed[0].at_s == pytest.approx(0.4, abs=0.1)
    assert seen.disturbed[0].lasted_s == pytest.approx(0.4, abs=0.1)
    assert len(seen.latencies_s) == len(sent) == 160
    marked = [row for row, mark in enumerate(seen.marks) if mark]
    assert marked == list(range(marked[0], marked[-1] + 1))
    assert (marked[0], marked[-1]) == pytest.approx((20, 100), abs=10), "the intervals before and after too"


def test_a_machine_that_is_never_quiet_ends_the_load_all_the_same() -> None:
    seen = open_loop(answering_in(0.001), Budget(100), watch=reporting(*["another program"] * 100))
    assert len(seen.latencies_s) == 100
    assert all(seen.marks)
    assert seen.doubt == ""


@pytest.mark.parametrize("rate", [900, 20_000])
def test_a_load_too_fast_for_a_pause_is_looked_at_all_the_same(rate: float) -> None:
    budget = Budget(50_000, lambda seen: len(seen.latencies_s) >= 100)
    assert len(open_loop(answering_in(0.001), budget, rate=rate).latencies_s) < 20_000


@pytest.mark.parametrize("together", [1, 8])
def test_a_stream_sends_one_query_after_the_other(together: int) -> None:
    sent: Counter[bytes] = Counter()

    async def answer(_: VirtualClock, request: Encoded) -> str:
        sent[request.body] += 1
        await asyncio.sleep(0.01 * (1 + int(request.body)))
        return ""

    seen = one_by_one(answer, Budget(16), together)
    assert sum(sent.values()) == 16 * together
    slowest = [0.08] * 16 if together == 8 else [0.01 * (1 + index % 8) for index in range(16)]
    assert seen.latencies_s == pytest.approx(slowest)


def test_a_query_of_which_one_request_fails_is_infinitely_late() -> None:
    async def answer(_: VirtualClock, request: Encoded) -> str:
        return "503: busy" if request == REQUESTS[3] else ""

    assert one_by_one(answer, Budget(2), 8) == Responses(
        (math.inf,) * 2, (0.0,) * 2, {"503: busy": 2}, marks=(False,) * 2, sent=16
    )


def warm_up(answer: Answer, compilations: Iterator[float] | None = None) -> tuple[WarmUp, float]:
    """Return what warming up took, and the seconds that it lasted."""
    compiled = compilations or itertools.repeat(4.0)

    async def count() -> float:
        return next(compiled)

    async def use(generator: LoadGenerator) -> tuple[WarmUp, float]:
        return await generator.warm_up(REQUESTS, count), generator.clock()

    return generate(answer, use)


def test_a_server_is_warm_once_three_medians_in_a_row_agree() -> None:
    asked = itertools.count()

    async def cools(_: VirtualClock, __: Encoded) -> str:
        await asyncio.sleep(0.01 if next(asked) >= 2 * WARM_UP_REQUESTS else 0.02)
        return ""

    assert warm_up(answering_in(0.01))[0] == WarmUp(3 * WARM_UP_REQUESTS, steady=True)
    assert warm_up(cools)[0] == WarmUp(5 * WARM_UP_REQUESTS, steady=True)


def test_a_server_is_not_warm_while_it_compiles() -> None:
    warmed, _ = warm_up(answering_in(0.01), iter([4.0, 4.0, 5.0, 6.0, 6.0]))
    assert warmed == WarmUp(5 * WARM_UP_REQUESTS, steady=True)


def test_a_server_whose_latency_never_settles_is_warmed_up_for_a_bounded_time() -> None:
    latencies = itertools.cycle([0.01] * WARM_UP_REQUESTS + [0.02] * WARM_UP_REQUESTS)

    async def unsteady(_: VirtualClock, __: Encoded) -> str:
        await asyncio.sleep(next(latencies))
        return ""

    warmed, seconds = warm_up(unsteady)
    assert not warmed.steady
    assert WARM_UP_S <= seconds < WARM_UP_S + 0.1


def test_a_fast_server_is_watched_for_a_while_before_it_is_called_warm() -> None:
    warmed, seconds = warm_up(answering_in(0.0005))
    assert warmed.steady
    assert seconds == pytest.approx(3 * SHORTEST_S, rel=0.01)


def test_a_slow_server_gets_warm_within_the_time_too() -> None:
    warmed, seconds = warm_up(answering_in(0.4))
    assert warmed.steady
    assert seconds < WARM_UP_S


def test_a_server_that_answers_nothing_is_not_warmed_up() -> None:
    async def refuse(_: VirtualClock, __: Encoded) -> str:
        await asyncio.sleep(0.01)
        return "ClientConnectorError"

    assert warm_up(refuse)[0] == WarmUp(WARM_UP_REQUESTS, steady=False)
