"""What is installed: the built-in words and those that plugins add."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deploycheck.checks import MetricFunction
from deploycheck.errors import DeploycheckError
from deploycheck.language import Vocabulary


@dataclass(frozen=True)
class Extensions:
    """Names to what they mean: metrics themselves, all else by import path."""

    metrics: Mapping[str, MetricFunction]
    loaders: Mapping[str, str]
    steps: Mapping[str, str]
    compressors: Mapping[str, str]
    runtimes: Mapping[str, str]
    registries: Mapping[str, str]
    reports: Mapping[str, str]

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """The names as the language needs them."""
        return Vocabulary(
            {name: metric.word for name, metric in self.metrics.items()},
            *(
                frozenset(names)
                for names in (self.loaders, self.steps, self.compressors, self.runtimes, self.registries)
            ),
        )

    @functools.cached_property
    def subjects(self) -> Mapping[str, frozenset[str]]:
        """What each metric looks at."""
        return {name: metric.subjects for name, metric in self.metrics.items()}


def builtin_extensions() -> Extensions:
    """Return what is installed where no plugin is loaded: the built-in words."""
    from deploycheck import builtin

    return Extensions(
        merged_metrics([builtin.pytest_deploycheck_metrics()]),
        builtin.pytest_deploycheck_loaders(),
        builtin.pytest_deploycheck_steps(),
        builtin.pytest_deploycheck_compressors(),
        builtin.pytest_deploycheck_runtimes(),
        builtin.pytest_deploycheck_registries(),
        builtin.pytest_deploycheck_reports(),
    )


def merged(kind: str, parts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Put the names of all plugins together; two of one name are an error."""
    whole: dict[str, str] = {}
    for part in parts:
        for name, path in part.items():
            if whole.setdefault(name, path) != path:
                raise DeploycheckError(
                    f"two plugins define the {kind} {name!r}: {whole[name]} and {path}",
                    hint="rename or remove one",
                )
    return whole


def merged_metrics(parts: Iterable[Iterable[MetricFunction]]) -> dict[str, MetricFunction]:
    """Put the metrics of all plugins together; two of one name are an error."""
    whole: dict[str, MetricFunction] = {}
    for part in parts:
        for metric in part:
            if whole.setdefault(metric.word.name, metric) is not metric:
                raise DeploycheckError(
                    f"two plugins define the metric {metric.word.name!r}", hint="rename or remove one"
                )
    return whole
