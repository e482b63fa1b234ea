"""The noise floor: the differences measured when an artifact is compared with itself (A/A)."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploycheck.checks import MetricFunction
from deploycheck.errors import DeploycheckError
from deploycheck.plan import Plan, with_needs
from deploycheck.ref import Ref
from deploycheck.runner.execute import Runner
from deploycheck.serving import load_report
from deploycheck.serving.load_report import LoadReport
from deploycheck.steps.load import measure_load
from deploycheck.steps.noise import SIDES
from deploycheck.store.disk import write_whole
from deploycheck.verdict import Blocks, Quantile, bounds, value_of

FILE = "noise.json"
ALWAYS = ("throughput", "latency.p50", "latency.p99")


@dataclass(frozen=True, kw_only=True)
class Floor:
    """A metric of two servers of one artifact: their ratio, with bounds.

    ``smallest`` is the smallest regression that can be seen, as a share; infinite where none can.
    """

    metric: str
    ratio: float
    low: float
    high: float
    smallest: float


@dataclass(frozen=True)
class Noise:
    """What was measured of a spec's variant, against itself."""

    variant: str
    schedule: str
    disturbed: int
    floors: tuple[Floor, ...]


def measure_noise(runner: Runner, plan: Plan, variant: str | None) -> Noise:
    """Serve a variant (the first that the spec serves) twice, and compare it with itself.

    Raises ``DeploycheckError`` for a spec that serves nothing, or not this variant.
    """
    served = plan.spec.serve.variants if plan.spec.serve else ()
    if not served or variant not in (None, *served):
        what = f"it doesn't serve {variant}" if served else "it has no `serve`: nothing in it is timed"
        hint = f"there are: {', '.join(served)}" if served else ""
        raise DeploycheckError(what, where=plan.id, hint=hint)
    chosen = variant or served[0]
    ref = Ref("noise", (chosen,))
    steps = {**plan.steps, **with_needs(plan.spec, [ref], runner.extensions)}
    loads = load_report.read(runner.step(replace(plan, steps=steps), ref).artifact.path)
    first, second = (loads[side] for side in SIDES)
    floors = tuple(
        _floor(name, metric, percentile, (first, second), plan.spec.confidence)
        for name, metric, percentile in _timed(runner, plan)
    )
    return Noise(chosen, first.saturation, len(first.disturbed), floors)


def _timed(runner: Runner, plan: Plan) -> Iterator[tuple[str, MetricFunction, float | None]]:
    """Yield the metrics that compare two servers: the usual ones, and those that the spec has."""
    vocabulary, metrics = runner.extensions.vocabulary, runner.extensions.metrics
    for name in dict.fromkeys((*ALWAYS, *(check.metric for check in plan.checks))):
        word = vocabulary.find(name)
        if word is None or "load" not in metrics[word[0].name].subjects:
            continue
        metric, percentile = metrics[word[0].name], word[1]
        if issubclass(metric.sample, Blocks | Quantile):
            yield name, metric, percentile


def _floor(
    name: str, metric: MetricFunction, percentile: float | None, loads: tuple[LoadReport, LoadReport], confidence: float
) -> Floor:
    sample = measure_load(metric, percentile, "itself", *loads).sample
    low, high = bounds(sample, confidence)
    smallest = 1 - low if metric.word.direction == "higher" else high - 1
    return Floor(
        metric=name,
        ratio=value_of(sample),
        low=low,
        high=high,
        smallest=smallest if math.isfinite(smallest) else math.inf,
    )


def remember(noise: Noise, plan: Plan, cache: Path) -> Path:
    """Write what was measured on this machine to the file of all specs, for ``lint`` to read; return the file."""
    file = cache / FILE
    known = _read(file)
    known.setdefault(this_machine(), {})[plan.id] = {
        "variant": noise.variant,
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "smallest": {floor.metric: floor.smallest for floor in noise.floors if math.isfinite(floor.smallest)},
    }
    write_whole(file, json.dumps(known, indent=1) + "\n")
    return file


def floors_of(plan: Plan, cache: Path) -> Mapping[str, float]:
    """Return the smallest visible regression of each metric, as far as it was measured for this spec on this machine.

    What was measured on another machine doesn't hold for this one.
    """
    entry = _read(cache / FILE).get(this_machine(), {}).get(plan.id)
    return entry["smallest"] if entry else {}


def this_machine() -> str:
    """Return the name under which noise floors are saved: this machine's name, architecture and number of cores."""
    return f"{platform.node()} ({platform.machine()}, {os.cpu_count()} cores)"


def _read(file: Path) -> dict[str, dict[str, Any]]:
    """Return what was saved: by machine and by the id of the spec."""
    try:
        known: dict[str, dict[str, Any]] = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        hint = "delete it, and measure again: deploycheck noise SPEC"
        raise DeploycheckError(f"can't be read: {error}", where=str(file), hint=hint) from error
    return known
