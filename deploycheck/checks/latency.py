"""What serving a variant is like for who calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploycheck.checks.metric import metric
from deploycheck.language.vocabulary import Dimension
from deploycheck.verdict import Blocks, Exact, Measurement, Quantile

if TYPE_CHECKING:
    from deploycheck.serving.report import LoadReport

STAGES = ("serve",)


@metric("latency", dimension=Dimension.TIME, direction="lower", stages=STAGES, percentiles=True)
def latency(load: LoadReport, percentile: float) -> Measurement:
    """Time from when a request should have left to its whole reply; a failed request took forever."""
    return Measurement(Quantile(percentile, load.latencies_s), note=load.schedule, doubt=load.doubt)


@metric("throughput", dimension=Dimension.RATE, direction="higher", stages=STAGES)
def throughput(load: LoadReport) -> Measurement:
    """Requests answered a second with the server kept busy, over consecutive blocks."""
    return Measurement(Blocks(load.requests_per_s), note=load.saturation)


@metric("errors", dimension=Dimension.COUNT, direction="lower", stages=STAGES)
def errors(load: LoadReport) -> Measurement:
    """Number of requests under load that failed or timed out."""
    return Measurement(Exact(load.failed), note=load.failures)


@metric("parity", dimension=Dimension.NUMBER, direction="lower", stages=STAGES)
def parity(load: LoadReport) -> Measurement:
    """Largest absolute difference between a served output and the model in memory, over the test split."""
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
