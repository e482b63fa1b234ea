from __future__ import annotations

from pathlib import Path

import pytest

from deploycheck.registry.sqlite import SqliteRegistry, open_sqlite


@pytest.fixture
def registry(tmp_path: Path) -> SqliteRegistry:
    return open_sqlite("registry.db", tmp_path)
