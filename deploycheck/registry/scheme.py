"""A kind of registry, by the scheme of its URL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploycheck.registry.ledger import Registry


@dataclass(frozen=True)
class RegistryScheme:
    """What ``promote.registry: SCHEME:LOCATION`` opens.

    ``open(location, root)`` returns the registry; a location that is a path is relative to ``root`` and can't leave
    it.
    """

    scheme: str
    open: Callable[[str, Path], Registry]
