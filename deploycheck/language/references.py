"""Names in a spec that refer to code and files: they must exist, and take the arguments that the spec gives them.

It works on plain data, so that these mistakes are found in a spec whose structure is wrong elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deploycheck.errors import DeploycheckError
from deploycheck.language.errors import Mistake, SpecPath, did_you_mean
from deploycheck.language.methods import model_keys
from deploycheck.language.names import (
    FILLED_BY_TRAINING,
    IMPORT_PATH,
    Problem,
    check_arguments,
    check_import,
    check_types,
    optax_functions,
)
from deploycheck.language.properties import find_properties
from deploycheck.language.spec import ANSWERS
from deploycheck.language.vocabulary import Vocabulary


def check_references(data: dict[str, Any], root: Path, installed: Vocabulary) -> list[Mistake]:
    """Return the mistakes in what a spec names: its code, optimiser and data file. ``root`` is the project."""
    mistakes = [
        *_check_call(data, ("model", "build"), root, FILLED_BY_TRAINING),
        *_check_call(data, ("data", "load"), root),
        *_check_file(data, ("data", "with", "path"), root),
        *_check_file(data, ("model", "artifact"), root),
        *_check_file(data, ("model", "weights", "path"), root),
        *_check_path(data, ("model", "weights", "load"), root),
        *_check_path(data, ("model", "weights", "names"), root),
        *_check_installed(data, installed),
        *_check_models(data, root, installed),
        *_check_optimizer(data),
    ]
    for name in mapping(data, "metrics"):
        mistakes += _check_call(data, ("metrics", name, "use"), root, ANSWERS)
    for path in (*_steps(data), *_methods(data), *_properties(data)):
        if ":" in str(path[-1]):
            mistakes += [_placed(problem, path) for problem in check_import(str(path[-1]), root, None)]
    return mistakes


def check_registry(data: dict[str, Any], root: Path, vocabulary: Vocabulary) -> list[Mistake]:
    """Return the mistake in the location of the registry, before a run ends with it."""
    at = ("promote", "registry")
    url = get(data, at)
    scheme, _, location = url.partition(":") if isinstance(url, str) else ("", "", "")
    if scheme not in vocabulary.registries:
        return []  # none is given, or a mistake that the section reports
    try:
        vocabulary.registries[scheme](location, root)
    except DeploycheckError as error:
        return [Mistake(at, error.what, error.hint)]
    except (OSError, ValueError, RuntimeError):  # a name too long, a circle of links
        return [Mistake(at, f"no registry can be reached by {location[:80]!r}")]
    return []


def get(data: Any, path: SpecPath) -> Any:
    """Return the part of plain data at ``path``; None if there is none."""
    for part in path:
        if isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            data = data.get(part) if isinstance(data, dict) else None
    return data


def mapping(data: dict[str, Any], *path: str) -> dict[str, Any]:
    """Return the mapping at ``path``; an empty one if there is none."""
    found = get(data, path)
    return found if isinstance(found, dict) else {}


def has_weights(data: dict[str, Any]) -> bool:
    """Whether a spec's model has weights before any training: then it need not be trained."""
    return not {"weights", "artifact"}.isdisjoint(mapping(data, "model"))


def _check_call(
    data: dict[str, Any], path: SpecPath, root: Path, filled: frozenset[str] = frozenset()
) -> list[Mistake]:
    """Check an import path with its arguments under ``with``; ``filled`` are arguments that deploycheck gives."""
    name, given = get(data, path), get(data, (*path[:-1], "with"))
    if not isinstance(name, str) or not IMPORT_PATH.fullmatch(name):
        return []  # a loader's name, or a mistake that its section reports
    arguments = given if isinstance(given, dict) else {}
    return [_placed(problem, path, (*path[:-1], "with")) for problem in check_import(name, root, arguments, filled)]


def _check_path(data: dict[str, Any], path: SpecPath, root: Path) -> list[Mistake]:
    """Check an import path that is written alone; whatever else is there has no code to look for."""
    name = get(data, path)
    if not isinstance(name, str) or ":" not in name:
        return []
    return [_placed(problem, path) for problem in check_import(name, root, None)]


def _placed(problem: Problem, path: SpecPath, arguments: SpecPath | None = None) -> Mistake:
    """Return a problem as a mistake: at the argument that it concerns, or at ``path``."""
    if problem.argument is None or arguments is None:
        return Mistake(path, problem.what, problem.hint)
    return Mistake((*arguments, problem.argument), problem.what, problem.hint, key=True)


def _check_installed(data: dict[str, Any], installed: Vocabulary) -> list[Mistake]:
    """Check the arguments of an installed loader, and of installed preprocessing steps."""
    mistakes = []
    load, at = get(data, ("data", "load")), ("data", "with")
    loader = installed.loaders.get(load) if isinstance(load, str) else None
    if loader:
        given = mapping(data, *at)
        problems = [*check_arguments(load, loader, given), *check_types(load, loader, given)]
        is_complete = "model" in data  # the specs that extend a standard complete it
        mistakes += [_placed(problem, ("data", "load"), at) for problem in problems if problem.argument or is_complete]
    for path in _steps(data):
        name, given = str(path[-1]), _options(data, path)
        step = installed.preprocessing.get(name)
        problems = [*check_arguments(name, step, given), *check_types(name, step, given)] if step else []
        mistakes += [
            Mistake((*path, *([problem.argument] if problem.argument else [])), problem.what, problem.hint, key=True)
            for problem in problems
        ]
    return mistakes


def _check_models(data: dict[str, Any], root: Path, installed: Vocabulary) -> list[Mistake]:
    """Check the models that methods are given, as ``model`` is checked; one without ``build`` is the spec's own."""
    mistakes = []
    for path in _models(data, installed):
        own, at, given = get(data, ("model", "build")), (*path, "with"), get(data, (*path, "with"))
        if "build" in get(data, path):
            mistakes += _check_call(data, (*path, "build"), root, FILLED_BY_TRAINING)
        elif "artifact" in mapping(data, "model"):
            what = "`model` is a file here, and no other model can be built from it"
            mistakes.append(Mistake(path, what, "add `build: package.module:name`", key=True))
        elif isinstance(own, str) and IMPORT_PATH.fullmatch(own) and isinstance(given, dict):
            problems = check_import(own, root, {**mapping(data, "model", "with"), **given}, FILLED_BY_TRAINING)
            mistakes += [_placed(problem, path, at) for problem in problems if problem.argument in given]
    return mistakes


def _options(data: dict[str, Any], path: SpecPath) -> dict[str, Any]:
    """Return the options of the preprocessing step at ``path``."""
    *_, index, name = path
    steps: Any = get(data, ("data", "preprocess"))
    given = steps[index][name]
    return given if isinstance(given, dict) else {}


def _check_file(data: dict[str, Any], at: SpecPath, root: Path) -> list[Mistake]:
    """Check the file that is read: it exists, and is in the project."""
    written = get(data, at)
    if not isinstance(written, str):
        return []
    try:
        path = (root / written).resolve()
        inside, there = path.is_relative_to(root.resolve()), path.exists()
    except (OSError, ValueError, RuntimeError):  # a name too long, a NUL in it, a circle of links
        return [Mistake(at, f"no file can be reached by {written[:80]!r}")]
    if not inside:
        return [Mistake(at, f"{written} is outside of {root.name}/", "move the file into the project")]
    return [] if there else [Mistake(at, f"there is no file {written}", f"paths are from {root.name}/")]


def _check_optimizer(data: dict[str, Any]) -> list[Mistake]:
    chosen = get(data, ("train", "optimizer"))
    known = optax_functions("_src.alias") if isinstance(chosen, dict) and len(chosen) == 1 else {}
    if not known:
        return []  # a mistake that the section reports; or optax is not installed, which the training reports
    ((name, given),) = chosen.items()
    path: SpecPath = ("train", "optimizer", name)
    if name not in known:
        return [Mistake(path, f"optax has no optimiser {name!r}", did_you_mean(name, known), key=True)]
    arguments: Mapping[str, Any] = given if isinstance(given, dict) else {}
    problems = check_arguments(name, known[name], arguments)
    return [
        Mistake((*path, *([problem.argument] if problem.argument else [])), problem.what, problem.hint, key=True)
        for problem in problems
    ]


def _steps(data: dict[str, Any]) -> Iterator[SpecPath]:
    """Yield the path of each preprocessing step's name."""
    steps = get(data, ("data", "preprocess"))
    for index, step in enumerate(steps if isinstance(steps, list) else ()):
        if isinstance(step, dict) and len(step) == 1:
            yield ("data", "preprocess", index, *step)


def _with_methods(data: dict[str, Any]) -> Iterator[SpecPath]:
    """Yield the path of each mapping whose key may be a method: a variant, or one method of a recipe."""
    for variant in mapping(data, "compress", "variants"):
        at: SpecPath = ("compress", "variants", variant)
        yield at
        recipes = get(data, (*at, "search", "over"))
        for number, recipe in enumerate(recipes if isinstance(recipes, list) else ()):
            path = (*at, "search", "over", number)
            yield from ((*path, index) for index in range(len(recipe))) if isinstance(recipe, list) else (path,)


def _methods(data: dict[str, Any]) -> Iterator[SpecPath]:
    """Yield the path of each name under a ``method``."""
    for path in _with_methods(data):
        method = get(data, (*path, "method"))
        if isinstance(method, dict) and len(method) == 1:
            yield (*path, "method", *method)


def _models(data: dict[str, Any], installed: Vocabulary) -> Iterator[SpecPath]:
    """Yield the path of each mapping with which an installed method is given another model."""
    for at in _with_methods(data):
        for methods in (at, (*at, "method")):
            written = get(data, methods)
            for name in written.keys() & installed.methods.keys() if isinstance(written, dict) else ():
                paths = [(*methods, name, key) for key in model_keys(installed.methods[name])]
                yield from (path for path in paths if isinstance(get(data, path), dict))


def _properties(data: dict[str, Any]) -> Iterator[SpecPath]:
    """Yield the path of each property's name, as if it were written with settings; and of each transformation's."""
    for _, path, name, settings in find_properties(data):
        yield (*path, name)
        given = settings.get("transformation")
        names = given if isinstance(given, dict) else [given] if isinstance(given, str) else []
        yield from ((*path, name, "transformation", transformation) for transformation in names)
