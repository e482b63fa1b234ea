"""The key of a step in the store: everything that it is given, and the code that does it."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from deploycheck.extensions import Extensions
from deploycheck.language.fields import Section
from deploycheck.ref import Source
from deploycheck.runner.code import PACKAGE, code_of, own_code_of, versions_of_file
from deploycheck.runner.digests import Digests, from_root
from deploycheck.steps import STEP_KINDS
from deploycheck.store import Artifact

Content = Mapping[str, Any]
"""The content of a key, as plain JSON: everything that decides the result."""


def key_content(
    kind: str,
    settings: Section,
    *,
    inputs: Mapping[str, Artifact],
    extensions: Extensions,
    platform: Mapping[str, str],
    digests: Digests,
) -> Content:
    """Return all that a step's result depends on, before any of the user's code has run.

    ``settings`` and ``inputs`` are what its ``make`` is given; ``platform`` says on what it is computed. What else the
    user's code uses is recorded while it runs (``runner/recording.py``).
    """
    plain = settings.model_dump(mode="json")
    step = STEP_KINDS[kind]
    sources = tuple(step.sources(settings))
    own = own_code_of([type(step).__module__, *_built_in(sources, extensions)], digests)
    users = code_of((source.name.partition(":")[0] for source in _by_path(sources)), extensions.root, digests)
    declared = {extensions.origins[source] for source in sources if source in extensions.origins}
    plugins = {name: version for file in declared for name, version in versions_of_file(file).items()}
    return {
        "kind": kind,
        "settings": plain,
        "inputs": {role: artifact.digest for role, artifact in inputs.items()},
        "files": _files(plain, extensions.root, digests),
        "sources": users.sources | {from_root(file, extensions.root): digests.file(file) for file in declared},
        "own": own.sources,
        "libraries": own.libraries | users.libraries | plugins,
        "platform": dict(platform),
    }


def _by_path(sources: Iterable[Source]) -> Iterator[Source]:
    return (source for source in sources if ":" in source.name)


def _built_in(sources: Iterable[Source], extensions: Extensions) -> Iterator[str]:
    """Yield our modules that define what a step uses by an installed name."""
    for source in sources:
        found = extensions.installed(source)
        if found is not None and source not in extensions.origins:
            yield module_of(found)


def module_of(extension: Any) -> str:
    """Return the module that defines an extension's behaviour: that of its functions, or of its class."""
    functions = [value for value in vars(extension).values() if inspect.isfunction(value)]
    return str(functions[0].__module__ if functions else type(extension).__module__)


ARGUMENTS = frozenset({"arguments", "options", "preprocess", "recipes", "metrics"})
"""The settings that the user's code is called with, in every kind of step."""
MODEL = "artifact"
"""The setting that names the file or folder of a model. It may be in the cache, where nothing is recorded."""


def _files(settings: Mapping[str, Any], root: Path, digests: Digests) -> dict[str, str]:
    """Return the digests of the files and folders that a model, or the arguments of the user's code, name."""
    found: dict[str, str] = {}
    for text in _texts([part for name, part in settings.items() if name in ARGUMENTS or name == MODEL]):
        path = Path(os.path.normpath(root / text))
        try:
            is_data = path.exists() and not root.is_relative_to(path) and not path.is_relative_to(PACKAGE)
        except (OSError, ValueError):
            continue
        if is_data and path.suffix != ".py":
            found[text] = digests.tree(path)
    return found


def _texts(settings: Any) -> Iterator[str]:
    match settings:
        case str() if 0 < len(settings) < 4096:
            yield settings
        case Mapping():
            for value in settings.values():
                yield from _texts(value)
        case list() | tuple():
            for value in settings:
                yield from _texts(value)


def environment() -> dict[str, str]:
    """Return the environment variables that may change what JAX and XLA compute, and Python's version.

    Where JAX keeps what it compiled, and what it logs, change no result.
    """
    deciding = re.compile(r"(JAX|XLA)_(?!COMPILATION_CACHE|PERSISTENT_CACHE|LOGGING|TRACEBACK)")
    given = {name: value for name, value in os.environ.items() if deciding.match(name)}
    return {**given, "python": f"{sys.version_info.major}.{sys.version_info.minor}"}


NOUNS = {
    "settings": "setting",
    "inputs": "input",
    "files": "path",
    "sources": "source",
    "libraries": "library",
    "platform": "platform",
}
"""The parts of a key, each with the word for one entry of it in messages."""
MOST = 3


def why_different(before: Content, after: Content) -> str:
    """Return what changed between two keys of one step, in words: ``source net.py changed``."""
    changes = [
        f"{noun} {name} {change}"
        for part, noun in NOUNS.items()
        for name, change in _differences(before.get(part, {}), after[part])
    ]
    if before.get("own") != after["own"]:
        changes.append("deploycheck's own code changed")
    more = f"; and {len(changes) - MOST} more" if len(changes) > MOST else ""
    return "; ".join(changes[:MOST]) + more


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the paths at which two mappings differ, each with how: ``train.epochs``, ``changed``."""
    for name in sorted(before.keys() | after.keys()):
        path = f"{prefix}{name}"
        if name not in after:
            yield path, "is gone"
        elif name not in before:
            yield path, "is new"
        elif isinstance(before[name], Mapping) and isinstance(after[name], Mapping):
            yield from _differences(before[name], after[name], f"{path}.")
        elif before[name] != after[name]:
            yield path, "changed"
