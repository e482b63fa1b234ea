"""Streams whose slow requests come together, with quiet between them: ``[gates, n]`` of latencies."""

from __future__ import annotations

import numpy as np

WARM = 1000
"""Requests before the stream begins, until a queue has its usual length."""


def pauses(random: np.random.Generator, gates: int, n: int, every: float, length: int, regular: float) -> np.ndarray:
    """Draw a server that stops every ``every`` requests, as a garbage collector does, while ``length`` requests arrive.

    A request that arrives in a pause waits for the rest of it. A share ``regular`` of the time between two pauses is
    fixed, the rest is exponential.
    """
    latencies = 0.005 * np.exp(0.5 * random.standard_normal((gates, n)))
    count = int(3 * n / every) + 20
    gaps = every * (regular + (1 - regular) * random.exponential(1.0, (gates, count)))
    starts = np.floor(np.cumsum(gaps, axis=1) - random.uniform(0, every, (gates, 1)) - length).astype(int)
    for arrived in range(length):
        gate, request = np.nonzero((starts + arrived >= 0) & (starts + arrived < n))
        rest = 0.1 * (1 - (arrived + random.random(len(gate))) / length)
        latencies[gate, starts[gate, request] + arrived] += rest
    return latencies


def waits(gaps: np.ndarray, service: np.ndarray) -> np.ndarray:
    """Return the times in a queue of one server, by Lindley's recursion: ``gaps`` follow their request."""
    times, waiting = np.empty_like(gaps), np.zeros(len(gaps))
    for step in range(gaps.shape[1]):
        times[:, step] = waiting + service[:, step]
        waiting = np.maximum(0.0, times[:, step] - gaps[:, step])
    return times


def stopped_queue(random: np.random.Generator, gates: int, n: int, every: int, length: int) -> np.ndarray:
    """Draw the times in a queue, busy for 0.3 of the time, whose server stops for ``length`` arrivals."""
    shape = gates, n + WARM
    stops = (np.arange(n + WARM) + random.integers(0, every, (gates, 1))) % every == 0
    service = 0.3 * np.exp(0.3 * random.standard_normal(shape) - 0.045) + length * stops
    return waits(random.exponential(1.0, shape), service)[:, WARM:]


def bursty_queue(
    random: np.random.Generator, gates: int, n: int, burst: int, quiet: int, faster: float, spread: float
) -> np.ndarray:
    """Draw the times in a queue, busy for 0.3 of the time, of arrivals modulated by a Markov chain.

    It has two states, of ``burst`` and ``quiet`` requests on average; in the first, requests arrive ``faster`` times
    as fast. The logarithms of the service times have the deviation ``spread``.
    """
    shape = gates, n + WARM
    drawn, bursting = random.random(shape), np.empty(shape, dtype=bool)
    state = random.random(gates) < burst / (burst + quiet)
    for step in range(n + WARM):
        state = np.where(state, drawn[:, step] >= 1 / burst, drawn[:, step] < 1 / quiet)
        bursting[:, step] = state
    mean = (burst / faster + quiet) / (burst + quiet)
    gaps = random.exponential(1.0, shape) * np.where(bursting, 1 / faster, 1.0) / (0.3 * mean)
    return waits(gaps, np.exp(spread * random.standard_normal(shape) - spread**2 / 2))[:, WARM:]
