"""The built-in extensions, declared in the same way as a plugin's."""

from __future__ import annotations

from collections.abc import Sequence

from deploycheck.checks import MetricFunction, data, latency, quality, regression, size, statistics
from deploycheck.evidence.forms.json import JSON_REPORT
from deploycheck.evidence.forms.markdown import MARKDOWN_REPORT
from deploycheck.extensions import Extension
from deploycheck.properties.batch_invariant import BATCH_INVARIANT
from deploycheck.properties.bounded import BOUNDED
from deploycheck.properties.deterministic import DETERMINISTIC
from deploycheck.properties.finite import FINITE
from deploycheck.properties.invariant_to import INVARIANT_TO
from deploycheck.properties.monotone_in import MONOTONE_IN
from deploycheck.properties.order_invariant import ORDER_INVARIANT
from deploycheck.properties.rejects_malformed import REJECTS_MALFORMED
from deploycheck.properties.stable_under import STABLE_UNDER
from deploycheck.registry.sqlite import SQLITE
from deploycheck.serving.runtimes.onnxruntime import ONNXRUNTIME
from deploycheck.serving.runtimes.xla import XLA
from deploycheck.serving.scenarios import SCENARIOS
from deploycheck.stages.formats import MSGPACK, NPZ_WEIGHTS, ORBAX, SAFETENSORS
from deploycheck.stages.loaders import CSV, NPZ, PARQUET
from deploycheck.stages.methods.dead_zone import DEAD_ZONE
from deploycheck.stages.methods.distill import DISTILL
from deploycheck.stages.methods.prune import PRUNE
from deploycheck.stages.methods.quantize import QUANTIZE
from deploycheck.stages.preprocess import fill_missing, scale, standardize
from deploycheck.stages.samplers.cmaes import CMAES
from deploycheck.stages.samplers.gp import GP
from deploycheck.stages.samplers.grid import GRID
from deploycheck.stages.samplers.nsga2 import NSGA2
from deploycheck.stages.samplers.random import RANDOM
from deploycheck.stages.samplers.tpe import TPE
from deploycheck.stages.tasks.classification import CLASSIFICATION
from deploycheck.stages.tasks.regression import REGRESSION

METRIC_FAMILIES = (data, latency, quality, regression, size, statistics)


def pytest_deploycheck_extensions() -> Sequence[Extension]:
    """Return what is built in; the metrics are those in the modules of their families, under ``checks``."""
    metrics = [
        value for family in METRIC_FAMILIES for value in vars(family).values() if isinstance(value, MetricFunction)
    ]
    return [
        *metrics,
        *(NPZ, CSV, PARQUET),
        *(SAFETENSORS, NPZ_WEIGHTS, ORBAX, MSGPACK),
        *(scale, standardize, fill_missing),
        *(QUANTIZE, DEAD_ZONE, PRUNE, DISTILL),
        *(CLASSIFICATION, REGRESSION),
        *(XLA, ONNXRUNTIME),
        *SCENARIOS,
        *(TPE, GP, NSGA2, CMAES, RANDOM, GRID),
        *(BATCH_INVARIANT, ORDER_INVARIANT, DETERMINISTIC, FINITE, BOUNDED),
        *(INVARIANT_TO, MONOTONE_IN, STABLE_UNDER, REJECTS_MALFORMED),
        SQLITE,
        *(JSON_REPORT, MARKDOWN_REPORT),
    ]
