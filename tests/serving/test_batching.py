from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploycheck.serving.batching import Batcher, batch_sizes
from deploycheck.serving.metrics import Metrics
from deploycheck.serving.protocol import BadRequest
from tests.serving.asking import DEADLINE_S

T = TypeVar("T")
POISON = -1.0
LARGEST = 8


class Doubling:
    """Stands for the engine: doubles its input, fails where a batch holds ``POISON``, and may be held up."""

    def __init__(self) -> None:
        self.sizes = (1, 2, 4, LARGEST)
        self.batches: list[int] = []
        self.largest_offered = 0
        self.running = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.running.set()
        assert self.go_on.wait(DEADLINE_S)
        x = inputs["x"]
        self.largest_offered = max(self.largest_offered, len(x))
        if POISON in x:
            raise RuntimeError("poisoned")
        self.batches.append(len(x))
        return {"y": 2 * x}


def tensor(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array(values, np.float32)}


def with_batcher(
    engine: Doubling, use: Callable[[Batcher], Awaitable[T]], *, max_delay_s: float = 0.0, max_queue: int = 1000
) -> T:
    """Run ``use`` with a batcher that is running; past the deadline it is a ``TimeoutError``."""

    async def run() -> T:
        batcher = Batcher(engine, max_delay_s, max_queue, Metrics("m", "1", "sha256:0", engine.sizes))  # type: ignore[arg-type]
        runner = asyncio.create_task(batcher.run())
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await use(batcher)
        finally:
            engine.go_on.set()
            runner.cancel()

    return asyncio.run(run())


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 1000).map(float), min_size=1, max_size=LARGEST), min_size=1, max_size=30))
def test_each_request_gets_its_own_answer_and_no_batch_is_too_large(requests: list[list[float]]) -> None:
    engine = Doubling()

    async def use(batcher: Batcher) -> list[Mapping[str, np.ndarray]]:
        return await asyncio.gather(*(batcher.submit(tensor(*values), len(values)) for values in requests))

    answers = with_batcher(engine, use)
    assert [answer["y"].tolist() for answer in answers] == [[2 * value for value in values] for values in requests]
    assert sum(engine.batches) == sum(map(len, requests))
    assert engine.largest_offered <= LARGEST


def test_a_lone_request_does_not_wait_for_others() -> None:
    answer = with_batcher(Doubling(), lambda batcher: batcher.submit(tensor(3), 1), max_delay_s=10 * DEADLINE_S)
    assert answer["y"].tolist() == [6]


def test_requests_that_come_together_run_together() -> None:
    engine = Doubling()

    async def use(batcher: Batcher) -> None:
        await asyncio.gather(*(batcher.submit(tensor(value), 1) for value in range(LARGEST)))

    with_batcher(engine, use)
    assert engine.batches == [LARGEST]


def test_requests_that_come_while_a_batch_runs_are_the_next_batch() -> None:
    engine = Doubling()
    engine.go_on.clear()

    async def use(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.submit(tensor(0), 1))
        await asyncio.to_thread(engine.running.wait)
        others = [asyncio.create_task(batcher.submit(tensor(value), 1)) for value in (1, 2, 3)]
        await asyncio.sleep(0)
        engine.go_on.set()
        await asyncio.gather(first, *others)

    with_batcher(engine, use)
    assert engine.batches == [1, 3]


def test_one_on_its_way_in_is_waited_for() -> None:
    engine = Doubling()

    async def use(batcher: Batcher) -> None:
        with batcher.arriving():
            first = asyncio.create_task(batcher.submit(tensor(1), 1))
            for _ in range(10):
                await asyncio.sleep(0)
            assert not engine.running.is_set()
            await asyncio.gather(first, *(batcher.submit(tensor(2), 1) for _ in range(LARGEST - 1)))

    with_batcher(engine, use, max_delay_s=10 * DEADLINE_S)
    assert engine.batches == [LARGEST]


def test_the_wait_for_one_on_its_way_in_ends() -> None:
    engine = Doubling()

    async def use(batcher: Batcher) -> Mapping[str, np.ndarray]:
        with batcher.arriving():  # and never arrives
            return await batcher.submit(tensor(1), 1)

    assert with_batcher(engine, use, max_delay_s=0.01)["y"].tolist() == [2]


def test_a_request_the_model_fails_on_does_not_harm_its_neighbours() -> None:
    engine = Doubling()

    async def use(batcher: Batcher) -> list[Mapping[str, np.ndarray] | BaseException]:
        values = (1, 2, POISON, 4)
        return await asyncio.gather(*(batcher.submit(tensor(v), 1) for v in values), return_exceptions=True)

    answers = with_batcher(engine, use)
    assert isinstance(answers[2], RuntimeError)
    assert [answer["y"].tolist() for answer in answers if isinstance(answer, dict)] == [[2], [4], [8]]


def test_after_a_failure_the_next_request_is_answered() -> None:
    async def use(batcher: Batcher) -> Mapping[str, np.ndarray]:
        with pytest.raises(RuntimeError, match="poisoned"):
            await batcher.submit(tensor(POISON), 1)
        return await batcher.submit(tensor(5), 1)

    assert with_batcher(Doubling(), use)["y"].tolist() == [10]


def test_a_full_queue_turns_away_and_takes_again_once_it_is_emptied() -> None:
    engine = Doubling()
    engine.go_on.clear()

    async def use(batcher: Batcher) -> None:
        running = asyncio.create_task(batcher.submit(tensor(0), 1))
        await asyncio.to_thread(engine.running.wait)
        waiting = [asyncio.create_task(batcher.submit(tensor(1), 1)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(BadRequest, match="busy") as refused:
            await batcher.submit(tensor(2), 1)
        assert refused.value.status == 503
        engine.go_on.set()
        await asyncio.gather(running, *waiting)
        assert (await batcher.submit(tensor(3), 1))["y"].tolist() == [6]

    with_batcher(engine, use, max_queue=2)


def test_a_request_given_up_while_it_waits_is_not_run() -> None:
    engine = Doubling()
    engine.go_on.clear()

    async def use(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.submit(tensor(0), 1))
        await asyncio.to_thread(engine.running.wait)
        given_up, kept = (asyncio.create_task(batcher.submit(tensor(value), 1)) for value in (1, 2))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.sleep(0)
        engine.go_on.set()
        await asyncio.gather(first, kept)

    with_batcher(engine, use)
    assert engine.batches == [1, 1]


@given(st.integers(1, 5000), st.data())
def test_every_batch_fits_a_compiled_size_of_less_than_twice_its_own(largest: int, data: st.DataObject) -> None:
    sizes = batch_sizes(largest)
    assert sizes == tuple(sorted(set(sizes)))
    assert sizes[-1] == largest
    count = data.draw(st.integers(1, largest))
    fitting = next(size for size in sizes if size >= count)
    assert fitting < 2 * count
    assert len(sizes) <= 2 + largest.bit_length()
