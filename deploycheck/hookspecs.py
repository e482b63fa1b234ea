"""The hooks a plugin or a ``conftest.py`` implements to add to the language.

Each returns names and where their implementation is: nothing heavy is imported until a check needs it. The
built-in ones are declared the same way, in ``deploycheck.builtin``. A name that is taken is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from deploycheck.checks import MetricFunction


@pytest.hookspec
def pytest_deploycheck_metrics() -> Sequence[MetricFunction]:  # type: ignore[empty-body]
    """Return metrics: functions decorated with ``deploycheck.checks.metric``."""


@pytest.hookspec
def pytest_deploycheck_loaders() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Return data loaders by name: the import path of a function that returns ``(inputs, labels)``."""


@pytest.hookspec
def pytest_deploycheck_steps() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Return preprocessing steps by name: the import path of a ``deploycheck.stages.preprocess.Step``."""


@pytest.hookspec
def pytest_deploycheck_compressors() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Return compression methods by name: the import path of a ``deploycheck.stages.model.Method``."""


@pytest.hookspec
def pytest_deploycheck_runtimes() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Return serving runtimes by name: the import path of a callable like ``serving.process.ServerProcess``."""


@pytest.hookspec
def pytest_deploycheck_registries() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Return registries by URL scheme: the import path of a callable ``(location, root) -> Registry``."""


@pytest.hookspec
def pytest_deploycheck_reports() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Return reports by file suffix: the import path of a function from evidence to text."""
