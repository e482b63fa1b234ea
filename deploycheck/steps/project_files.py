"""Files that a spec names by their path in the project."""

from __future__ import annotations

from pathlib import Path

from deploycheck.errors import DeploycheckError


def find_file(written: str, root: Path) -> Path:
    """Return the path that a spec means; raise ``DeploycheckError`` for one that leads out of the project."""
    path = (root / written).resolve()
    if not path.is_relative_to(root.resolve()):
        raise DeploycheckError(f"{written} is outside of the project", hint="move the file into it")
    return path
