"""A project of its own for each test of the command, with a registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploycheck.registry.sqlite import SqliteRegistry, open_sqlite
from tests.registry.processes import made, move


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty project."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def registry(folder: Path) -> SqliteRegistry:
    """Return the registry that is used where none is named, with two promotions: a, then b."""
    registry = open_sqlite("registry.db", folder / ".deploycheck")
    for name in "ab":
        move(registry, made(folder, name))
    return registry
