"""The built-in words, declared as a plugin would declare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deploycheck.checks import MetricFunction, data, latency, quality, regression, size, statistics


def pytest_deploycheck_metrics() -> Sequence[MetricFunction]:
    """Return the metrics of every family under ``checks``."""
    families = (data, latency, quality, regression, size, statistics)
    return [value for family in families for value in vars(family).values() if isinstance(value, MetricFunction)]


def pytest_deploycheck_loaders() -> Mapping[str, str]:
    """Return the loaders of files."""
    return {name: f"deploycheck.stages.loaders:{name}" for name in ("npz", "csv", "parquet")}


def pytest_deploycheck_steps() -> Mapping[str, str]:
    """Return the preprocessing steps."""
    return {name: f"deploycheck.stages.preprocess:{name}" for name in ("scale", "standardize", "fill_missing")}


def pytest_deploycheck_compressors() -> Mapping[str, str]:
    """Return the compression methods."""
    return {"quantize": "deploycheck.stages.quantize:METHOD"}


def pytest_deploycheck_runtimes() -> Mapping[str, str]:
    """Return the serving runtimes."""
    return {"xla": "deploycheck.serving.process:ServerProcess"}


def pytest_deploycheck_registries() -> Mapping[str, str]:
    """Return the registries, by the scheme of their URL."""
    return {"sqlite": "deploycheck.registry.sqlite:open_sqlite"}


def pytest_deploycheck_reports() -> Mapping[str, str]:
    """Return the evidence's faces, by file suffix."""
    return {".json": "deploycheck.evidence.faces:as_json", ".md": "deploycheck.evidence.faces:as_markdown"}
