"""A kind of registry, by the scheme of its URL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploycheck.registry.ledger import Registry


def accept(location: str, root: Path) -> None:
    """Accept every location: for a kind of registry that can't be checked before it is opened."""
    del location, root


@dataclass(frozen=True)
class RegistryScheme:
    """What ``promote.registry: SCHEME:LOCATION`` opens.

    ``open(location, root)`` returns the registry; a location that is a path is relative to ``root`` and can't leave
    it. ``check(location, root)`` raises ``DeploycheckError`` for a location that can't be opened; it is called when
    specs are collected, so it must be fast, and it changes nothing.
    """

    scheme: str
    open: Callable[[str, Path], Registry]
    check: Callable[[str, Path], None] = accept
