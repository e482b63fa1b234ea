"""Metrics of serving: what a load test of one variant measured."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from deploycheck.checks.metric import metric
from deploycheck.language.vocabulary import Dimension
from deploycheck.verdict import Blocks, Events, Exact, Measurement, Quantile

if TYPE_CHECKING:
    from deploycheck.serving.load_report import LoadReport

STAGES = ("serve",)
SHORTEST_S = 1e-9
"""No time is shorter: a clock counts whole nanoseconds."""


def _describe_failures(load: LoadReport) -> str:
    return f"{load.failed:,} requests failed: {load.failures}" if load.failed else ""


def _describe_disturbances(load: LoadReport, marks: tuple[bool, ...], of_what: str) -> str:
    """Return how much of a stream was disturbed, and how it was counted; of two models, how many rounds were."""
    if not load.disturbed:
        return ""
    what = max(load.disturbed, key=lambda one: one.lasted_s).what
    if any(marks):
        counted = "which count towards a pass and not towards a failure"
        return f"the machine was disturbed during {sum(marks):,} of {len(marks):,} {of_what} ({what}), {counted}"
    if not marks:
        return f"the machine was disturbed in {len(load.disturbed)} rounds, which were measured again ({what})"
    return ""


def _join(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _of_requests(sample: Quantile | Events, load: LoadReport) -> Measurement:
    """Return a measurement of the requests on the scenario's schedule."""
    obstacles = _describe_disturbances(load, load.disturbed_requests, "requests")
    failures = _describe_failures(load)
    note = _join(failures, load.schedule, obstacles)
    return Measurement(sample, note, doubt=load.doubt, disturbed=_join(failures, obstacles))


def _of_blocks(load: LoadReport) -> Measurement:
    """Return the measurement of the rates of a server kept busy."""
    obstacles = _describe_disturbances(load, load.disturbed_blocks, "blocks")
    failures = _describe_failures(load)
    note = _join(failures, load.saturation, obstacles)
    sample = Blocks(load.requests_per_s, load.disturbed_blocks)
    return Measurement(sample, note, disturbed=_join(failures, obstacles))


@metric(
    "latency",
    dimension=Dimension.TIME,
    direction="lower",
    stages=STAGES,
    sample=Quantile,
    percentiles=True,
    lowest=SHORTEST_S,
)
def latency(load: LoadReport, percentile: float) -> Measurement:
    """Time from when a request should have left to its whole reply; a failed request took forever."""
    return _of_requests(Quantile(percentile, load.latencies_s, load.rounds, load.disturbed_requests), load)


@metric("error_rate", dimension=Dimension.PROPORTION, direction="lower", stages=STAGES, sample=Events)
def error_rate(load: LoadReport) -> Measurement:
    """Share of the requests that failed or timed out."""
    failed = tuple(math.isinf(latency) for latency in load.latencies_s)
    return _of_requests(Events(failed, load.disturbed_requests), load)


@metric("throughput", dimension=Dimension.RATE, direction="higher", stages=STAGES, sample=Blocks)
def throughput(load: LoadReport) -> Measurement:
    """Requests answered per second with the server kept busy, over consecutive blocks; offline, samples per second."""
    return _of_blocks(load)


@metric("speedup", dimension=Dimension.MULTIPLE, direction="higher", stages=STAGES, sample=Blocks)
def speedup(load: LoadReport) -> Measurement:
    """Throughput over that of another variant or the baseline, both served at once and measured in turn."""
    return _of_blocks(load)


@metric("errors", dimension=Dimension.COUNT, direction="lower", stages=STAGES, sample=Exact)
def errors(load: LoadReport) -> Measurement:
    """Number of requests of the load test that failed or timed out."""
    note = _join(f"of {load.sent:,} requests", _describe_failures(load))
    return Measurement(Exact(load.failed), note=note, reach=(0, load.sent))


@metric("parity", dimension=Dimension.NUMBER, direction="lower", stages=STAGES, sample=Exact, lowest=0.0)
def parity(load: LoadReport) -> Measurement:
    """Largest absolute difference between a served output and the model in memory, over the test split."""
    if load.largest_difference is None:
        why = "it isn't measured where two models are compared: give it a limit of its own"
        return Measurement(Exact(math.nan), invalid=why)
    return Measurement(Exact(load.largest_difference))


@metric("cold_start", dimension=Dimension.TIME, direction="lower", stages=STAGES, sample=Exact, lowest=SHORTEST_S)
def cold_start(load: LoadReport) -> Measurement:
    """Time from the start of the server's process until it is ready, every batch size compiled."""
    found = load.disturbed_start
    doubt = f"the machine was disturbed while the server started: {found}" if found else ""
    return Measurement(Exact(load.cold_start_s), note=doubt, doubt=doubt)


@metric("memory", dimension=Dimension.SIZE, direction="lower", stages=STAGES, sample=Exact, lowest=1.0)
def memory(load: LoadReport) -> Measurement:
    """Peak resident memory of the server's process."""
    return Measurement(Exact(load.peak_memory_bytes))


@metric("recompilations", dimension=Dimension.COUNT, direction="lower", stages=STAGES, sample=Exact)
def recompilations(load: LoadReport) -> Measurement:
    """Number of programs that the server compiled after it had said that it was ready."""
    return Measurement(Exact(load.recompilations))
