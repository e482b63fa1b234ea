"""A project in ``tmp_path`` to load specs from."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploycheck.language import Vocabulary
from tests.language.writing import DATA, MODELS, VOCABULARY, Project


@pytest.fixture
def vocabulary() -> Vocabulary:
    return VOCABULARY


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.write("", "specs/__init__.py")
    made.write(MODELS, "specs/models.py")
    made.write(DATA, "specs/data.py")
    return made
