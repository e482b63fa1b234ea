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


def _describe_failures(load: LoadReport) -> str:
    return f"{load.failed:,} requests failed: {load.failures}" if load.failed else ""


def _describe_disturbances(load: LoadReport) -> str:
    if not load.disturbed:
        return ""
    times = f"{len(load.disturbed)} times, which was measured again (at last {load.disturbed[-1]})"
    return f"the machine was disturbed {times}"


def _join(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _note(load: LoadReport, method: str) -> str:
    """Return the remark of a timed metric; ``method`` says in words how it was measured."""
    return _join(_describe_failures(load), method, _describe_disturbances(load))


def _obstacles(load: LoadReport) -> str:
    """Return why a load test saw no more than it did, in words: requests that failed, and a disturbed machine."""
    return _join(_describe_failures(load), _describe_disturbances(load))


@metric("latency", dimension=Dimension.TIME, direction="lower", stages=STAGES, sample=Quantile, percentiles=True)
def latency(load: LoadReport, percentile: float) -> Measurement:
    """Time from when a request should have left to its whole reply; a failed request took forever."""
    sample = Quantile(percentile, load.latencies_s, load.rounds)
    return Measurement(sample, _note(load, load.schedule), doubt=load.doubt, disturbed=_obstacles(load))


@metric("error_rate", dimension=Dimension.PROPORTION, direction="lower", stages=STAGES, sample=Events)
def error_rate(load: LoadReport) -> Measurement:
    """Share of the requests that failed or timed out."""
    failed = tuple(math.isinf(latency) for latency in load.latencies_s)
    return Measurement(Events(failed), _note(load, load.schedule), doubt=load.doubt, disturbed=_obstacles(load))


@metric("throughput", dimension=Dimension.RATE, direction="higher", stages=STAGES, sample=Blocks)
def throughput(load: LoadReport) -> Measurement:
    """Requests answered per second with the server kept busy, over consecutive blocks; offline, samples per second."""
    return Measurement(Blocks(load.requests_per_s), _note(load, load.saturation), disturbed=_obstacles(load))


@metric("speedup", dimension=Dimension.MULTIPLE, direction="higher", stages=STAGES, sample=Blocks)
def speedup(load: LoadReport) -> Measurement:
    """Throughput over that of another variant or the baseline, both served at once and measured in turn."""
    return Measurement(Blocks(load.requests_per_s), _note(load, load.saturation), disturbed=_obstacles(load))


@metric("errors", dimension=Dimension.COUNT, direction="lower", stages=STAGES, sample=Exact, counts_requests=True)
def errors(load: LoadReport) -> Measurement:
    """Number of requests of the load test that failed or timed out."""
    return Measurement(Exact(load.failed), note=_describe_failures(load))


@metric("parity", dimension=Dimension.NUMBER, direction="lower", stages=STAGES, sample=Exact, lowest=0.0)
def parity(load: LoadReport) -> Measurement:
    """Largest absolute difference between a served output and the model in memory, over the test split."""
    if load.largest_difference is None:
        why = "it isn't measured where two models are compared: give it a limit of its own"
        return Measurement(Exact(math.nan), invalid=why)
    return Measurement(Exact(load.largest_difference))


@metric("cold_start", dimension=Dimension.TIME, direction="lower", stages=STAGES, sample=Exact, lowest=1e-9)
def cold_start(load: LoadReport) -> Measurement:
    """Time from the start of the server's process until it is ready, every batch size compiled."""
    return Measurement(Exact(load.cold_start_s))


@metric("memory", dimension=Dimension.SIZE, direction="lower", stages=STAGES, sample=Exact, lowest=1.0)
def memory(load: LoadReport) -> Measurement:
    """Peak resident memory of the server's process."""
    return Measurement(Exact(load.peak_memory_bytes))


@metric("recompilations", dimension=Dimension.COUNT, direction="lower", stages=STAGES, sample=Exact)
def recompilations(load: LoadReport) -> Measurement:
    """Number of programs that the server compiled after it had said that it was ready."""
    return Measurement(Exact(load.recompilations))
