"""Benches for tests: a spec's serve section for the model that these tests serve."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deploycheck.language.spec import Serve
from deploycheck.serving.bench import Bench
from deploycheck.serving.goals import Goal
from deploycheck.serving.scenarios import SCENARIOS

IMAGES = np.random.default_rng(0).normal(size=(64, 4, 4, 1)).astype(np.float32)


def make_bench(
    scratch: Path, load: Mapping[str, Any], *goals: Goal, progress: Callable[[str], None] = lambda _: None
) -> Bench:
    """Return a bench for batches of 4 at most, with this load section."""
    batching = {"max_size": 4, "max_delay": "1 ms"}
    serve = Serve.model_validate({"variants": ["A"], "batching": batching, "load": dict(load)})
    return Bench(
        serve=serve,
        scenario=next(scenario for scenario in SCENARIOS if scenario.name == serve.load.scenario),
        inputs={"image": IMAGES},
        goals=goals,
        extensions=(),
        scratch=scratch,
        progress=progress,
    )
