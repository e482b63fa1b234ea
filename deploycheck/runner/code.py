"""What code a step depends on: sources by their syntax trees, installed libraries by their versions."""

from __future__ import annotations

import functools
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from deploycheck.language.names import source_file
from deploycheck.runner.digests import Digests

PACKAGE = Path(__file__).parents[1]
COMPUTES = ("deploycheck.stages", "deploycheck.serving.runtimes")
"""Our packages whose libraries decide a result. The libraries of other packages (YAML, locks, HTTP) do not."""


@dataclass
class CodeOf:
    """Digests of sources by module name, and versions of installed libraries by distribution name."""

    sources: dict[str, str] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)


def code_of(modules: Iterable[str], root: Path, digests: Digests) -> CodeOf:
    """Return the user's code of modules: the modules themselves, and all that they import, directly or not.

    A module counts as the user's wherever it is, unless it belongs to Python, to an installed library or to us.
    """
    found = CodeOf()

    def take(name: str, file: Path) -> bool:
        if is_installed(file):
            found.libraries.update(versions_of_module(name))
            return False
        code = digests.code(file)
        found.sources[name] = code.digest if code else ""
        return True

    _walk(modules, lambda name: source_file(name, root), digests, take, with_packages=True)
    return found


def own_code_of(modules: Iterable[str], digests: Digests) -> CodeOf:
    """Return our own code behind modules of this package, and the libraries that compute for it.

    It is read once in a process, which has loaded it: every key asks for it.
    """
    return _own_code_of(frozenset(modules), digests)


@functools.lru_cache(maxsize=64)
def _own_code_of(modules: frozenset[str], digests: Digests) -> CodeOf:
    found = CodeOf()

    def take(name: str, file: Path) -> bool:
        code = digests.code(file)
        found.sources[name] = code.digest if code else ""
        if name.startswith(COMPUTES):
            libraries = {imported.partition(".")[0] for imported in _imported(name, file, digests)} - {PACKAGE.name}
            for library in libraries:
                found.libraries.update(versions_of_module(library))
        return True

    _walk(sorted(modules), _own_file, digests, take, with_packages=False)
    return found


@functools.cache
def _own_file(module: str) -> Path | None:
    """Return the source file of a module of this package, or None for any other; much faster than Python's finders."""
    if module.partition(".")[0] != PACKAGE.name:
        return None
    path = PACKAGE.parent.joinpath(*module.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def _walk(
    modules: Iterable[str],
    find: Callable[[str], Path | None],
    digests: Digests,
    take: Callable[[str, Path], bool],
    *,
    with_packages: bool,
) -> None:
    """Call ``take`` with every module that ``find`` finds and its file; where it returns true, go on with its imports.

    Importing a module runs the packages that it is in, too; ours only collect names, so they don't count
    (``with_packages``).
    """
    waiting, seen = list(modules), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or not name:
            continue
        seen.add(name)
        file = find(name)
        if file is None or not take(name, file):
            continue
        if with_packages:
            waiting.append(name.rpartition(".")[0])
        waiting.extend(_imported(name, file, digests))


def _imported(module: str, file: Path, digests: Digests) -> Iterator[str]:
    """Yield the names of modules that a source may import; a name taken from a package may be one of its modules."""
    code = digests.code(file)
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for level, name, taken in code.imports if code else ():
        parents = package.split(".")[: len(package.split(".")) - level + 1] if level else []
        base = ".".join([*parents, *([name] if name else [])])
        yield base
        yield from (f"{base}.{each}" for each in taken)


@functools.lru_cache(maxsize=4096)
def is_installed(file: Path) -> bool:
    """Whether a file belongs to Python, to an installed library or to this package; links are followed.

    Every step asks this of each module that is loaded, thousands: so paths are compared as text.
    """
    is_link = os.path.islink(file)  # noqa: PTH114 - Path.is_symlink asks os.stat, which the recorder watches
    real = Path(os.path.realpath(file)) if is_link or file.name == ".." else _real_folder(file.parent) / file.name
    return not _PACKAGES.isdisjoint(real.parts) or f"{real}{os.sep}".startswith(_installed_folders())


_PACKAGES = frozenset({"site-packages", "dist-packages"})


@functools.lru_cache(maxsize=4096)
def _real_folder(folder: Path) -> Path:
    return Path(os.path.realpath(folder))


@functools.cache
def _installed_folders() -> tuple[str, ...]:
    named = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    bases = [Path(base) / "lib" for base in (sys.base_prefix, sys.prefix)]
    return tuple(f"{path.resolve()}{os.sep}" for path in (*named, *bases, PACKAGE))


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
def versions_of_module(module: str) -> dict[str, str]:
    """Return the versions of the distribution that an installed module is from, and of those that it requires.

    There are none for Python's own modules.
    """
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return {}
    owners = [top] if _version(top) != "none" else _packages().get(top, [])
    required = [name for owner in owners for name in _required(owner)]
    found = versions(*owners, *required)
    return {name: version for name, version in found.items() if version != "none"}


def versions_of_file(file: Path) -> dict[str, str]:
    """Return the versions of the distribution that an installed file is from; empty for the user's own files."""
    for folder in ("purelib", "platlib"):
        installed = Path(sysconfig.get_path(folder)).resolve()
        if file.resolve().is_relative_to(installed):
            return versions_of_module(file.resolve().relative_to(installed).parts[0].removesuffix(".py"))
    return {}


@functools.cache
def _packages() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())


def _required(distribution: str) -> list[str]:
    """Return the names of the distributions that one requires without extras."""
    lines = metadata.requires(distribution) or []
    return [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines if "extra" not in line.partition(";")[2]]
