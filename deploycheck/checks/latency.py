"""What serving a variant is like for who calls it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from deploycheck.checks.metric import metric
from deploycheck.language.vocabulary import Dimension
from deploycheck.verdict import Blocks, Events, Exact, Measurement, Quantile

if TYPE_CHECKING:
    from deploycheck.serving.report import LoadReport

STAGES = ("serve",)


def _disturbed(load: LoadReport) -> str:
    """Return what kept a load from seeing more, in words: what the machine did and how often, and what failed."""
    return "; ".join(filter(None, (_failed(load), _of_the_machine(load))))


def _of_the_machine(load: LoadReport) -> str:
    if not load.disturbed:
        return ""
    times = f"{len(load.disturbed)} times, which was measured again (at last {load.disturbed[-1]})"
    return f"the machine was disturbed {times}"


def _failed(load: LoadReport) -> str:
    return f"{load.failed:,} requests failed: {load.failures}" if load.failed else ""


def _noted(text: str, load: LoadReport) -> str:
    return "; ".join(filter(None, (_failed(load), text, _of_the_machine(load))))


@metric("latency", dimension=Dimension.TIME, direction="lower", stages=STAGES, percentiles=True)
def latency(load: LoadReport, percentile: float) -> Measurement:
    """Time from when a request should have left to its whole reply; a failed request took forever."""
    sample = Quantile(percentile, load.latencies_s, load.rounds)
    return Measurement(sample, _noted(load.schedule, load), doubt=load.doubt, disturbed=_disturbed(load))


@metric("error_rate", dimension=Dimension.PROPORTION, direction="lower", stages=STAGES)
def error_rate(load: LoadReport) -> Measurement:
    """Share of the requests that failed or timed out."""
    happened = tuple(math.isinf(latency) for latency in load.latencies_s)
    return Measurement(Events(happened), _noted(load.schedule, load), doubt=load.doubt, disturbed=_disturbed(load))


@metric("throughput", dimension=Dimension.RATE, direction="higher", stages=STAGES)
def throughput(load: LoadReport) -> Measurement:
    """Requests answered a second with the server kept busy, over consecutive blocks; offline, samples a second."""
    sample = Blocks(load.requests_per_s)
    return Measurement(sample, _noted(load.saturation, load), disturbed=_disturbed(load))


@metric("speedup", dimension=Dimension.MULTIPLE, direction="higher", stages=STAGES)
def speedup(load: LoadReport) -> Measurement:
    """Throughput over that of another variant or the baseline, both served at once and measured in turn."""
    return Measurement(Blocks(load.requests_per_s), _noted(load.saturation, load), disturbed=_disturbed(load))


@metric("errors", dimension=Dimension.COUNT, direction="lower", stages=STAGES)
def errors(load: LoadReport) -> Measurement:
    """Number of requests under load that failed or timed out."""
    return Measurement(Exact(load.failed), note=_failed(load))


@metric("parity", dimension=Dimension.NUMBER, direction="lower", stages=STAGES)
def parity(load: LoadReport) -> Measurement:
    """Largest absolute difference between a served output and the model in memory, over the test split."""
    if load.largest_difference is None:
        return Measurement(Exact(math.nan), invalid="it isn't measured where two models are compared: hold it alone")
    return Measurement(Exact(load.largest_difference))


@metric("cold_start", dimension=Dimension.TIME, direction="lower", stages=STAGES)
def cold_start(load: LoadReport) -> Measurement:
    """Time from starting the server's process to its being ready, every batch size compiled."""
    return Measurement(Exact(load.cold_start_s))


@metric("memory", dimension=Dimension.SIZE, direction="lower", stages=STAGES)
def memory(load: LoadReport) -> Measurement:
    """Peak resident memory of the server's process."""
    return Measurement(Exact(load.peak_memory_bytes))


@metric("recompilations", dimension=Dimension.COUNT, direction="lower", stages=STAGES)
def recompilations(load: LoadReport) -> Measurement:
    """Programs that the server compiled after it said that it was ready."""
    return Measurement(Exact(load.recompilations))
