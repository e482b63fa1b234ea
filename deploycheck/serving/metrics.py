"""What the server counts, in Prometheus' terms: base units, ``_total`` on counters, bounded labels."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LATENCY_BUCKETS = (
    0.0005,
    0.001,
    0.002,
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
)
"""OpenTelemetry's buckets in seconds, and three below them: an accelerated model answers faster than their first."""


class Metrics:
    """The server's collectors, in their own registry. ``labels`` are the model's name and version."""

    def __init__(self, model: str, version: str, digest: str, batch_sizes: tuple[int, ...]) -> None:
        self.registry = CollectorRegistry()
        names, self.labels = ("model", "version"), {"model": model, "version": version}

        def counter(name: str, text: str) -> Counter:
            made = Counter(f"deploycheck_inference_{name}", text, names, registry=self.registry)
            return made.labels(**self.labels)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"deploycheck_{name}", text, names, registry=self.registry).labels(**self.labels)

        def histogram(name: str, text: str, buckets: tuple[float, ...] = LATENCY_BUCKETS) -> Histogram:
            made = Histogram(f"deploycheck_inference_{name}", text, names, registry=self.registry, buckets=buckets)
            return made.labels(**self.labels)

        outcomes = (*names, "code_class", "reason")
        ended = "Requests by how they ended"
        self.requests = Counter("deploycheck_inference_requests", ended, outcomes, registry=self.registry)
        self.samples = counter("samples", "Examples answered")
        self.executions = counter("executions", "Batches run")
        self.compilations = counter("compilations", "Programs compiled")
        self.nonfinite = counter("nonfinite_outputs", "Answers withheld because they were not finite")
        self.request_seconds = histogram("request_duration_seconds", "From the request's body to its answer")
        self.queue_seconds = histogram("queue_duration_seconds", "From being queued to being run")
        self.compute_seconds = histogram("compute_duration_seconds", "Running one batch")
        self.batch_size = histogram("batch_size", "Examples in a batch", tuple(map(float, batch_sizes)))
        self.pending = gauge("inference_pending_requests", "Requests waiting to be run")
        self.in_flight = gauge("inference_in_flight_requests", "Requests being answered")
        self.ready = gauge("model_ready", "1 while the model answers")
        self.draining = gauge("server_draining", "1 while the server finishes the requests that have begun")
        self.load_seconds = gauge("model_load_duration_seconds", "Verifying, loading and compiling the model")
        info = Gauge("deploycheck_model_info", "What is served", (*names, "artifact_sha256"), registry=self.registry)
        info.labels(**self.labels, artifact_sha256=digest.removeprefix("sha256:")).set(1)
        memory = gauge("process_peak_resident_memory_bytes", "Peak resident memory of the server's process")
        memory.set_function(peak_memory_bytes)

    def ended(self, status: int, reason: str) -> None:
        """Count a request by the class of its status and why it ended so."""
        self.requests.labels(**self.labels, code_class=f"{status // 100}xx", reason=reason).inc()


def peak_memory_bytes() -> float:
    """Return the peak resident memory of this process in bytes.

    On Linux it is read from ``/proc``: ``getrusage`` counts what the parent process held before ``exec`` too.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return 1024.0 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return float(peak if sys.platform == "darwin" else peak * 1024)
