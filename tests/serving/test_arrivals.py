from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploycheck.serving.arrivals import arrivals


def first(count: int, kind: str, rate: float, seed: int) -> list[float]:
    return list(itertools.islice(arrivals(kind, rate, seed), count))


@given(st.integers(1, 200), st.floats(0.1, 1e4), st.integers(0, 2**32 - 1), st.sampled_from(["poisson", "constant"]))
def test_arrivals_are_in_order_and_the_same_for_the_same_seed(count: int, rate: float, seed: int, kind: str) -> None:
    drawn = first(count, kind, rate, seed)
    assert drawn == sorted(drawn)
    assert drawn[0] >= 0
    assert drawn == first(count, kind, rate, seed)


def test_another_seed_draws_other_arrivals() -> None:
    assert first(5, "poisson", 10, 0) != first(5, "poisson", 10, 1)


@pytest.mark.parametrize("seed", range(3))
def test_poisson_arrivals_have_their_rate_and_its_spread(seed: int) -> None:
    count, rate = 20_000, 50.0
    gaps = np.diff(first(count, "poisson", rate, seed), prepend=0.0)
    assert gaps.mean() == pytest.approx(1 / rate, rel=5 / math.sqrt(count))
    assert gaps.std() == pytest.approx(1 / rate, rel=0.05)
    # No memory: of the gaps over one mean, those over two are as frequent as those over one are of all.
    assert (gaps > 1 / rate).mean() == pytest.approx(math.exp(-1), abs=0.02)
    assert (gaps > 2 / rate).mean() == pytest.approx(math.exp(-2), abs=0.02)


def test_constant_arrivals_are_evenly_spaced() -> None:
    assert first(3, "constant", 4, 0) == pytest.approx([0.25, 0.5, 0.75])
