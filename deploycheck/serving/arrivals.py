"""When the requests of a load leave."""

from __future__ import annotations

from collections.abc import Iterator

from deploycheck.lazy import np


def arrivals(kind: str, rate: float, seed: int) -> Iterator[float]:
    """Yield when requests leave, in seconds from the start: ``poisson``, or ``constant`` spacing. Endless."""
    random, due = np.random.default_rng(seed), 0.0
    while True:
        due += 1 / rate if kind == "constant" else random.exponential(1 / rate)
        yield due
