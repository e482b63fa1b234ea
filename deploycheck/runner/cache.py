"""Where artifacts, runs and the default registry are kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

CACHE = ".deploycheck"
"""The default folder, in pytest's root folder."""


def cache_of(config: pytest.Config) -> Path:
    """Return the cache folder: the one that ``--deploycheck-cache`` names, or the default."""
    given: Path | None = config.getoption("deploycheck_cache")
    return (given or config.rootpath / CACHE).absolute()
