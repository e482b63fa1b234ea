"""Paths as evidence has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploycheck.runner.cache import shown_path, without_paths


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("home/project/.deploycheck/store/model/ab", ".deploycheck/store/model/ab"),
        ("home/project/registry.artifacts/ab", "registry.artifacts/ab"),
        ("disk/cache/store/model/ab", "cache/store/model/ab"),
        ("disk/other/ab", "ab"),
    ],
)
def test_a_path_says_nothing_of_the_machine(path: str, shown: str, tmp_path: Path) -> None:
    inside = path.startswith("home/project/.deploycheck")
    cache = tmp_path / ("home/project/.deploycheck" if inside else "disk/cache")
    assert shown_path(tmp_path / path, cache, tmp_path / "home/project") == shown


def test_a_cache_behind_a_link_is_shown_as_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "real" / "store").mkdir(parents=True)
    (tmp_path / "cache").symlink_to(tmp_path / "real")
    assert shown_path(tmp_path / "cache" / "store", tmp_path / "cache") == "cache/store"


def test_a_message_keeps_all_but_the_folders(tmp_path: Path) -> None:
    root, cache = tmp_path / "project", tmp_path / "disk" / "cache"
    said = f"{root}/data.csv and {cache}/store/data/ab can't be read; /etc/passwd can"
    assert without_paths(said, cache, root) == "data.csv and cache/store/data/ab can't be read; /etc/passwd can"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("data/x.npz: no such key a/b", "data/x.npz: no such key a/b"),
        ("/cache/store/data/ab is damaged", "cache/store/data/ab is damaged"),
        ("/usr/lib/app/x.py and /app/x.py, '/app/y.py'", "/usr/lib/app/x.py and x.py, 'y.py'"),
    ],
)
def test_a_message_loses_nothing_else(said: str, shown: str) -> None:
    assert without_paths(said, Path("/cache"), Path("/app")) == shown
    assert without_paths("/etc/passwd", Path("/cache"), Path("/")) == "/etc/passwd"
