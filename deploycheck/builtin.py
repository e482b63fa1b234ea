"""The built-in extensions, declared in the same way as a plugin's."""

from __future__ import annotations

from collections.abc import Sequence

from deploycheck.checks import MetricFunction, data, latency, quality, regression, size, statistics
from deploycheck.evidence.forms.json import JSON_REPORT
from deploycheck.evidence.forms.markdown import MARKDOWN_REPORT
from deploycheck.extensions import Extension
from deploycheck.registry.sqlite import SQLITE
from deploycheck.serving.runtimes.xla import XLA
from deploycheck.serving.scenarios import SCENARIOS
from deploycheck.stages.loaders import CSV, NPZ, PARQUET
from deploycheck.stages.methods.quantize import QUANTIZE
from deploycheck.stages.preprocess import fill_missing, scale, standardize
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
        *(scale, standardize, fill_missing),
        QUANTIZE,
        *(CLASSIFICATION, REGRESSION),
        XLA,
        *SCENARIOS,
        SQLITE,
        *(JSON_REPORT, MARKDOWN_REPORT),
    ]
