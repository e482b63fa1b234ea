"""Import paths, looked up in source without importing anything.

A spec names code as ``package.module:name``. Whether that exists, and takes the arguments a spec gives it, is
read from the module's text, so that a mistake is found before any of the user's code runs.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.machinery
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploycheck.language.errors import did_you_mean

IMPORT_PATH = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")

SEEDED = frozenset({"seed", "key", "rngs"})
"""Arguments of ``model.build`` that training fills in."""


@dataclass(frozen=True)
class Signature:
    """The arguments a function can be given by name; ``open`` where it takes any (``**kwargs``)."""

    arguments: frozenset[str]
    required: frozenset[str]
    open: bool


def source_file(module: str, root: Path) -> Path | None:
    """Find a module's source file; None for what has none (built-in, namespace package, missing).

    Nothing is imported, the module's parents neither.
    """
    try:
        return _find(module, (str(root), *sys.path))
    except LookupError:
        return None


@functools.lru_cache(maxsize=1024)
def _find(module: str, path: tuple[str, ...]) -> Path:
    """Find a module's source file, once; one that isn't there is looked for again (``LookupError`` isn't kept)."""
    search = list(path)
    spec = None
    for part in module.split("."):
        spec = importlib.machinery.PathFinder.find_spec(part, search)
        if spec is None:
            raise LookupError(module)
        search = list(spec.submodule_search_locations or [])
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise LookupError(module)
    return Path(spec.origin)


def import_hint(written: str) -> str:
    """Return how an import path is written, with the one that was probably meant."""
    module, _, name = written.rpartition(".")
    meant = f"{module}:{name}"
    return f"did you mean {meant!r}?" if IMPORT_PATH.fullmatch(meant) else "write it as package.module:name"


def check_import(path: str, root: Path, given: Iterable[str] | None, filled: frozenset[str] = frozenset()) -> list[str]:
    """Return what is wrong with an import path and the arguments ``given`` to it, in words; nothing if all is well.

    With ``given`` None the arguments aren't checked. ``filled`` are arguments that someone else gives.
    """
    if not IMPORT_PATH.fullmatch(path):
        return [f"{path!r} is no import path; {import_hint(path)}"]
    module, _, name = path.partition(":")
    file = source_file(module, root)
    if file is None or not file.is_file():
        return [f"there is no module {module}"]
    names = _top_level(file, file.stat().st_mtime_ns)
    if names is None:
        return [f"the module {module} can't be parsed"]
    if name.partition(".")[0] not in names:
        if names.keys() & {"*", "__getattr__"}:
            return []
        return [f"{module} has no {name}; {did_you_mean(name, names)}"]
    signature = names.get(name)
    if signature is None or given is None:
        return []
    return wrong_arguments(name, signature, given, filled)


def wrong_arguments(name: str, signature: Signature, given: Iterable[str], filled: frozenset[str]) -> list[str]:
    """Return what is wrong with calling ``name`` with the arguments ``given`` and ``filled``, in words."""
    keys = set(given)
    wrong = []
    if not signature.open:
        unknown = sorted(keys - signature.arguments)
        wrong += [f"{name} takes no {key!r}; {did_you_mean(key, signature.arguments - filled)}" for key in unknown]
    meant = {near for key in keys - signature.arguments for near in difflib.get_close_matches(key, signature.arguments)}
    missing = sorted(signature.required - keys - filled - meant)
    if missing:
        wrong.append(f"{name} needs {', '.join(missing)}")
    return wrong


@functools.cache
def _top_level(file: Path, changed: int) -> Mapping[str, Signature | None] | None:
    """Return the names a module defines at its top, with the signature of each plain function.

    None where it can't be parsed; a name ``*`` where it takes all that another module has.
    """
    del changed  # only there so that an edited file is read again
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    names: dict[str, Signature | None] = {}
    for node in _statements(tree.body):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                names[node.name] = None if node.decorator_list else _signature(node.args)
            case ast.ClassDef():
                names[node.name] = None
            case ast.Import() | ast.ImportFrom():
                names |= {(alias.asname or alias.name).partition(".")[0]: None for alias in node.names}
            case _:
                names |= {
                    part.id: None
                    for part in ast.walk(node)
                    if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
                }
    return names


def _statements(body: list[ast.stmt]) -> Iterable[ast.stmt]:
    """Yield statements, those under a top-level ``if``, ``try`` or ``with`` too."""
    for node in body:
        yield node
        for part in ("body", "orelse", "finalbody", "handlers"):
            if isinstance(node, ast.If | ast.Try | ast.With):
                for inner in getattr(node, part, []):
                    yield from _statements(inner.body if isinstance(inner, ast.ExceptHandler) else [inner])


def _signature(arguments: ast.arguments) -> Signature:
    """Return what a function can be given by name; what it takes by position alone, it can't be given."""
    nameless = [argument.arg for argument in arguments.posonlyargs]
    positional = nameless + [argument.arg for argument in arguments.args]
    keywords = [argument.arg for argument in arguments.kwonlyargs]
    optional = positional[len(positional) - len(arguments.defaults) :] if arguments.defaults else []
    optional += [name for name, default in zip(keywords, arguments.kw_defaults, strict=True) if default is not None]
    every = frozenset((*positional, *keywords))
    return Signature(every - set(nameless), every - set(optional), arguments.kwarg is not None)


@functools.cache
def optax_functions(module: str) -> Mapping[str, Signature]:
    """Return the public functions of a module of optax with their signatures, read from its source.

    ``module`` is ``_src.alias`` (the optimisers), say. Empty where optax isn't installed.
    """
    file = source_file(f"optax.{module}", Path())
    if file is None:
        return {}
    names = _top_level(file, file.stat().st_mtime_ns) or {}
    return {name: signature for name, signature in names.items() if signature is not None and not name.startswith("_")}
