"""Import paths, looked up in source without importing anything.

A spec names code as ``package.module:name``. Whether it exists, and takes the arguments that a spec gives it, is read
from the module's text, so that a mistake is found before any of the user's code runs.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import inspect
import re
import symtable
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from deploycheck.language.errors import did_you_mean
from deploycheck.lazy import griffe

IMPORT_PATH = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")

FILLED_BY_TRAINING = frozenset({"seed", "key", "rngs"})
"""Arguments of ``model.build`` that training gives."""


@dataclass(frozen=True)
class Problem:
    """Something wrong with an import path; ``argument`` names the given argument that it concerns, if any."""

    what: str
    hint: str = ""
    argument: str | None = None


@dataclass(frozen=True)
class Signature:
    """The arguments that a function can be given by name; it is ``open`` if it takes any (``**kwargs``).

    ``types`` has the annotations of an installed function, as they are written: ``Sequence[str]``.
    """

    arguments: frozenset[str]
    required: frozenset[str]
    open: bool
    types: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Module:
    """The names that a module binds at its top, with the signature of each plain function; ``open`` if it may have
    more, from ``import *`` or a ``__getattr__``. ``imports`` says from where names are imported."""

    names: Mapping[str, Signature | None]
    open: bool
    imports: Mapping[str, str]


def source_file(module: str, root: Path) -> Path | None:
    """Return a module's source file; None for one that has none (built-in, compiled, namespace package, missing).

    ``root``, the project, comes first on the import path. Neither the module nor its parents are imported.
    """
    spec = _find_module(module, root)
    return None if spec is None else _source(spec)


def _find_module(module: str, root: Path) -> ModuleSpec | None:
    """Find a module as Python would, with ``root`` first on the import path."""
    try:
        return _find_once(module, (str(root), *sys.path), tuple(map(id, sys.meta_path)))
    except LookupError:
        return None


@functools.lru_cache(maxsize=1024)
def _find_once(module: str, path: tuple[str, ...], finders: tuple[int, ...]) -> ModuleSpec:
    """Find a module, once; a missing one is looked for each time (``LookupError`` isn't kept)."""
    del finders  # with other finders, it is looked for again
    search: list[str] | None = None
    spec = None
    parts = module.split(".")
    for depth in range(len(parts)):
        spec = _ask_finders(".".join(parts[: depth + 1]), search, list(path))
        if spec is None:
            raise LookupError(module)
        search = list(spec.submodule_search_locations or [])
    if spec is None:
        raise LookupError(module)
    return spec


def _ask_finders(name: str, search: list[str] | None, path: list[str]) -> ModuleSpec | None:
    """Ask each of Python's finders for a module, in order; ``search`` is its package's path, None at the top."""
    for finder in sys.meta_path:
        if finder is PathFinder:
            # Its last part alone: with the whole name, a namespace package's parent would have to be imported.
            found = PathFinder.find_spec(name.rpartition(".")[2], path if search is None else search)
        else:
            found = _ask_foreign(finder, name, search)
        if found is not None:
            return found
    return None


def _ask_foreign(finder: Any, name: str, search: list[str] | None) -> ModuleSpec | None:
    try:
        found: ModuleSpec | None = finder.find_spec(name, search)
    except Exception:  # it may expect that the parent package is imported, which it isn't here
        return None
    return found


def _source(spec: ModuleSpec) -> Path | None:
    return Path(spec.origin) if spec.origin is not None and spec.origin.endswith(".py") else None


def import_hint(written: str) -> str:
    """Return how an import path is written, with the one that was probably meant."""
    module, _, name = written.rpartition(".")
    meant = f"{module}:{name}"
    return f"did you mean {meant!r}?" if IMPORT_PATH.fullmatch(meant) else "write it as package.module:name"


STANDARD_HINT = "a spec names code of the project or of an installed package: write a function there that calls it"


def _is_standard(module: str, spec: ModuleSpec | None) -> bool:
    """Whether importing a module gives one of the standard library, or what another package puts in its place.

    What is imported already is what an import gives, also where the project has a module of the same name.
    """
    top = module.partition(".")[0]
    if top not in sys.stdlib_module_names:
        return _is_in_library(spec)
    given: ModuleSpec | None = getattr(sys.modules.get(top), "__spec__", None) or spec
    return _is_in_library(given) or (given is not None and not _INSTALLED.isdisjoint(Path(given.origin or "").parts))


def is_standard_module(found: object) -> bool:
    """Whether an object is a module of Python's standard library."""
    return isinstance(found, ModuleType) and _is_in_library(found.__spec__)


def _is_in_library(spec: ModuleSpec | None) -> bool:
    if spec is None:
        return False
    if spec.origin in ("built-in", "frozen"):
        return True
    places = [spec.origin, *(spec.submodule_search_locations or ())]
    return any(place is not None and _is_library_path(Path(place)) for place in places)


def _is_library_path(path: Path) -> bool:
    """Whether a path is in the folder of the standard library, but not in that of installed packages inside of it."""
    parts = next((path.relative_to(folder).parts for folder in _LIBRARY if path.is_relative_to(folder)), ())
    return bool(parts) and parts[0] not in _INSTALLED


_INSTALLED = frozenset({"site-packages", "dist-packages"})
_LIBRARY = tuple({Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")})


def check_import(
    path: str, root: Path, given: Iterable[str] | None, filled: frozenset[str] = frozenset()
) -> list[Problem]:
    """Return the problems of an import path and of the arguments ``given`` to it.

    With ``given`` None the arguments aren't checked. ``filled`` are the arguments that deploycheck gives. Of code
    without source (built-in, compiled) it is only checked that the module exists.
    """
    if not IMPORT_PATH.fullmatch(path):
        return [Problem(f"{path!r} is not an import path", import_hint(path))]
    module, _, name = path.partition(":")
    spec = _find_module(module, root)
    if _is_standard(module, spec):
        return [Problem(f"{module} is part of Python's standard library", STANDARD_HINT)]
    file = _source(spec) if spec else None
    if spec is None or (file is not None and not file.exists()):
        return [Problem(f"there is no module {module}")]
    if file is None:
        is_namespace = spec.loader is None or spec.origin is None
        return [Problem(f"{module} is a folder without an __init__.py: it has no {name}")] if is_namespace else []
    found = _read_module(file, file.stat().st_mtime_ns)
    if found is None:
        return [Problem(f"the module {module} can't be parsed")]
    first, _, rest = name.partition(".")
    if first not in found.names:
        return [] if found.open else [Problem(f"{module} has no {name}", did_you_mean(name, found.names))]
    if rest and (imported := found.imports.get(first)) and _is_standard(imported, _find_module(imported, root)):
        return [Problem(f"{module} imports {imported} from Python's standard library", STANDARD_HINT)]
    signature = found.names.get(name)
    return [] if signature is None or given is None else check_arguments(name, signature, given, filled)


def check_arguments(
    name: str, signature: Signature, given: Iterable[str], filled: frozenset[str] = frozenset()
) -> list[Problem]:
    """Return the problems of calling ``name`` with the arguments ``given`` and ``filled``."""
    keys = set(given)
    unknown = sorted(keys - signature.arguments)
    problems = [
        Problem(f"{name} takes no {key!r}", did_you_mean(key, signature.arguments - filled), key)
        for key in unknown
        if not signature.open
    ]
    meant = {near for key in unknown for near in difflib.get_close_matches(key, signature.arguments)}
    missing = sorted(signature.required - keys - filled - meant)
    return [*problems, Problem(f"{name} needs {', '.join(missing)}")] if missing else problems


def signature_of(function: Callable[..., Any], filled: int = 0) -> Signature | None:
    """Return the signature of an installed function without its first ``filled`` arguments; None where it has none."""
    try:
        parameters = list(inspect.signature(function).parameters.values())[filled:]
    except (TypeError, ValueError):
        return None
    by_name = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    return Signature(
        frozenset(each.name for each in by_name),
        frozenset(each.name for each in by_name if each.default is each.empty),
        any(each.kind is each.VAR_KEYWORD for each in parameters),
        {each.name: _annotation(each.annotation) for each in by_name if each.annotation is not each.empty},
    )


def _annotation(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"[\w.]+\.(?=\w)", "", text)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_TYPES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "Path": ("a path", lambda value: isinstance(value, str)),
    "str": ("text", lambda value: isinstance(value, str)),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "int": ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    "float": ("a number", _is_number),
    "Sequence[str]": ("a list of texts", _is_texts),
}
"""Of each annotation that is checked: what messages call it, and whether a value is such."""


def check_types(name: str, signature: Signature, given: Mapping[str, Any]) -> list[Problem]:
    """Return the problems of the values ``given`` to an installed function."""
    problems = []
    for key, value in given.items():
        called, is_such = _TYPES.get(signature.types.get(key, ""), ("", lambda _: True))
        if value is not None and not is_such(value):
            problems.append(Problem(f"{name} takes {called} as {key!r}, not {value!r:.80}", argument=key))
    return problems


@functools.cache
def _read_module(file: Path, changed: int) -> _Module | None:
    """Read what a module binds at its top; None where it can't be parsed."""
    del changed  # an edited file is read again
    try:
        text = importlib.util.decode_source(file.read_bytes())
        symbols = symtable.symtable(text, str(file), "exec").get_symbols()
        members = griffe.visit(file.stem, filepath=file, code=text).members
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    bound = [symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()]
    is_open = "__getattr__" in bound or any(name.endswith("/*") for name in members)
    imports = {name: member.target_path for name, member in members.items() if isinstance(member, griffe.Alias)}
    return _Module({name: _signature(members.get(name)) for name in bound}, is_open, imports)


def _signature(member: griffe.Object | griffe.Alias | None) -> Signature | None:
    """Return the signature of a plain function; None for anything else, a decorated function too."""
    if not isinstance(member, griffe.Function) or member.decorators:
        return None
    by_name = [
        parameter
        for parameter in member.parameters
        if parameter.kind in (griffe.ParameterKind.positional_or_keyword, griffe.ParameterKind.keyword_only)
    ]
    variadic = (griffe.ParameterKind.var_positional, griffe.ParameterKind.var_keyword)
    return Signature(
        frozenset(parameter.name for parameter in by_name),
        frozenset(parameter.name for parameter in member.parameters if parameter.required)
        - {parameter.name for parameter in member.parameters if parameter.kind in variadic},
        any(parameter.kind is griffe.ParameterKind.var_keyword for parameter in member.parameters),
    )


@functools.cache
def optax_functions(module: str) -> Mapping[str, Signature]:
    """Return the public functions of a module of optax with their signatures, read from its source.

    ``module`` is ``_src.alias`` for the optimisers. Empty where optax isn't installed.
    """
    file = source_file(f"optax.{module}", Path())
    found = _read_module(file, file.stat().st_mtime_ns) if file else None
    names = found.names if found else {}
    return {name: signature for name, signature in names.items() if signature is not None and not name.startswith("_")}
