"""Which registry a spec names, opened."""

from __future__ import annotations

from pathlib import Path

from deploycheck.errors import DeploycheckError
from deploycheck.registry import Registry
from deploycheck.runner.code import load_object
from deploycheck.runner.extensions import Extensions

DEFAULT_SCHEME, DEFAULT_LOCATION = "sqlite", "registry.db"


def open_registry(url: str | None, root: Path, cache: Path, extensions: Extensions) -> Registry:
    """Open the registry at ``SCHEME:LOCATION``, inside the project; by default the one in the cache folder."""
    scheme, _, location = (url or f"{DEFAULT_SCHEME}:{DEFAULT_LOCATION}").partition(":")
    if scheme not in extensions.registries:
        known = ", ".join(sorted(extensions.registries))
        raise DeploycheckError(f"unknown registry {scheme!r}", where="promote.registry", hint=f"there are: {known}")
    opener = load_object(extensions.registries[scheme], root, "promote.registry")
    registry: Registry = opener(location, root if url else cache)
    return registry
