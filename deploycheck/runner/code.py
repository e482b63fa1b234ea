"""What code a spec's import paths stand for: the function itself, and a fingerprint of its source."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import sys
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from deploycheck.errors import DeploycheckError
from deploycheck.language.names import source_file


def load_object(path: str, root: Path, where: str) -> Any:
    """Import ``package.module:name``, with ``root`` on the import path, and return what it names."""
    module_name, _, name = path.partition(":")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # importing runs the user's code, which may raise anything
        raise DeploycheckError(
            f"can't import {path}: {type(error).__name__}: {error}",
            where=where,
            hint=f"python -c 'import {module_name}' shows the whole traceback",
        ) from error
    return found


def code_fingerprint(path: str, root: Path) -> dict[str, str]:
    """Return what would change the behaviour of the code at an import path, by name.

    The sha256 of the module's file and of every module of the project that it imports, directly or not, and the
    version of every installed package that these import. A virtual environment under ``root`` is no part of it.
    """
    module = path.partition(":")[0]
    found: dict[str, str] = {}
    waiting, seen = [module], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or not name:
            continue
        seen.add(name)
        file = source_file(name, root)
        if file is None:
            continue
        if _is_installed(file) or not file.resolve().is_relative_to(root.resolve()):
            found |= _distribution_version(name)
            continue
        source = file.read_bytes()
        found[name] = hashlib.sha256(source).hexdigest()
        waiting.append(name.rpartition(".")[0])  # importing a module runs the package it is in
        waiting.extend(_imports(source, name, is_package=file.name == "__init__.py"))
    return dict(sorted(found.items()))


def _is_installed(file: Path) -> bool:
    """Whether a module belongs to Python or to an installed package, wherever that lies."""
    library = any(file.is_relative_to(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
    return library or not {"site-packages", "dist-packages"}.isdisjoint(file.parts)


def own_fingerprint(*modules: str) -> dict[str, str]:
    """Return the sha256 of modules of this package, by name: what a stage does is part of what it makes."""
    package = Path(__file__).parents[1]
    files = {name: package.joinpath(*name.split(".")).with_suffix(".py") for name in modules}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}


def versions(*distributions: str) -> dict[str, str]:
    """Return the installed version of each distribution; ``none`` where it isn't installed."""
    return {name: _version(name) for name in distributions}


@functools.cache
def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "none"


@functools.cache
def _packages() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())


def _distribution_version(module: str) -> dict[str, str]:
    owners = _packages().get(module.partition(".")[0], [])
    return {f"{owner} (package)": _version(owner) for owner in owners}


def _imports(source: bytes, module: str, *, is_package: bool) -> Iterator[str]:
    """Yield the names of modules that a source imports, at its top or inside its functions."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
