"""Coroutines in virtual time: what waits for the clock is run at once, and the clock says that the time has passed."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from deploycheck.serving.load import LoadGenerator
from deploycheck.serving.protocol import Encoded

T = TypeVar("T")
LIMIT_S = 10_000.0
"""A coroutine that isn't done by then waits for something that never happens."""


class VirtualClock:
    """Seconds that pass only where something waits for them, or where ``advance`` is called."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class _VirtualSelector(selectors.SelectSelector):
    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self.clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or self.clock.now > LIMIT_S:
            raise AssertionError(f"it waits for something that never happens, {self.clock.now:g} s in")
        self.clock.advance(max(0.0, timeout))
        return super().select(0)


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        super().__init__(_VirtualSelector(clock))

    def time(self) -> float:
        return self.clock.now


def run_in_virtual_time(use: Callable[[VirtualClock], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end; it is given the clock that its loop goes by."""
    clock = VirtualClock()
    with asyncio.Runner(loop_factory=lambda: _VirtualLoop(clock)) as runner:
        return runner.run(use(clock))


def generate(
    answer: Callable[[VirtualClock, Encoded], Awaitable[str]],
    use: Callable[[LoadGenerator], Coroutine[Any, Any, T]],
    watch: Callable[[], Callable[[], str]] = lambda: lambda: "",
    timeout_s: float = 10.0,
) -> T:
    """Use a load generator in virtual time, whose server is ``answer``: it returns why a request failed, or nothing."""

    async def run(clock: VirtualClock) -> T:
        async def ask(request: Encoded) -> str:
            return await answer(clock, request)

        return await use(LoadGenerator(ask, watch, clock, timeout_s))

    return run_in_virtual_time(run)
