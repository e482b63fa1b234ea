"""The hook that a plugin or a ``conftest.py`` implements to add to what specs can name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from deploycheck.extensions import Extension


@pytest.hookspec
def pytest_deploycheck_extensions() -> Sequence[Extension]:  # type: ignore[empty-body]
    """Return objects of any kind that ``deploycheck.extensions`` lists: metrics, loaders, methods, runtimes, ...

    It is called at collection, so what it returns should import heavy libraries only when it is used. Two extensions
    of the same kind and name are an error.
    """
