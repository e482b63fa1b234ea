"""Where artifacts, runs and the default registry are kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

CACHE = ".deploycheck"
"""The default folder, in pytest's root folder."""


def shown_path(path: Path, cache: Path, root: Path | None = None) -> str:
    """Return a path as evidence has it, so that it says nothing of the machine.

    It is relative to the project's folder ``root``, or to the folder that the cache is in; of others, only the name.
    """
    real = path.resolve()
    if root and real.is_relative_to(root.resolve()):
        return real.relative_to(root.resolve()).as_posix()
    if real.is_relative_to(cache.resolve()):
        return (Path(cache.name) / real.relative_to(cache.resolve())).as_posix()
    return path.name


def without_paths(text: str, cache: Path, root: Path) -> str:
    """Return a message in which paths in the project and in the cache are as ``shown_path`` returns them."""
    for folder, shown in ((cache, f"{shown_path(cache, cache, root)}/"), (root, "")):
        if folder != Path(folder.anchor):  # a part of every absolute path
            begins = re.compile(rf"(?<![\w./-]){re.escape(folder.as_posix())}/")
            text = shown.join(begins.split(text))
    return text


def cache_of(config: pytest.Config) -> Path:
    """Return the cache folder: the one that ``--deploycheck-cache`` names, or the default."""
    given: Path | None = config.getoption("deploycheck_cache")
    return (given or config.rootpath / CACHE).absolute()
