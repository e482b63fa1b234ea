"""The space of a search fits its spec: each part that it varies is there, and can have each value.

It works on plain data, so that these mistakes are found in a spec whose structure is wrong elsewhere.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from deploycheck.language import references
from deploycheck.language.crosscheck import TRAINING
from deploycheck.language.errors import Mistake, SpecPath, did_you_mean
from deploycheck.language.explain import explain
from deploycheck.language.optimize import Parameter
from deploycheck.language.resolve import Cell
from deploycheck.language.spec import Train
from deploycheck.language.tree import tree_form
from deploycheck.language.vocabulary import LOSS, PARAMETERS, Vocabulary

FIXED: Mapping[SpecPath, str] = {
    ("train", "loss"): "another loss is another task",
    ("train", "seeds"): "a search must not choose by luck",
    ("train", "expect"): "what is expected decides no training",
}
"""Parts of ``train`` that can't be searched, and why."""


def split_path(written: str) -> tuple[str, ...]:
    """Return the keys of a path as the space of a search writes it."""
    return tuple(written.split("."))


def put(data: Mapping[str, Any], path: SpecPath, value: Any) -> dict[str, Any]:
    """Return plain data with a value at ``path``. A part that isn't a mapping raises ``LookupError`` with its path."""
    key, *rest = path
    if not rest:
        return {**data, str(key): value}
    under = data.get(str(key))
    if not isinstance(under, Mapping):
        raise LookupError(str(key))
    try:
        return {**data, str(key): put(under, tuple(rest), value)}
    except LookupError as error:
        raise LookupError(f"{key}.{error.args[0]}") from None


def check_space(cell: Cell, root: Path, vocabulary: Vocabulary) -> list[Mistake]:
    """Return the mistakes in what a search varies, and in what it looks for; ``root`` is the project."""
    space = references.mapping(cell.data, "optimize", "space")
    if "model" not in cell.data or "optimize" not in cell.data or not isinstance(cell.data.get("train"), dict):
        return []  # a standard, or a section that is missing
    if not any(key in cell.data["train"] for key in TRAINING):
        hint = f"add {', '.join(TRAINING)} to `train`"
        return [Mistake(("optimize",), "a search is for settings of a training, and there is none", hint, key=True)]
    whole = replace(cell, data=_completed(cell.data))
    mistakes = [*_check_objectives(cell.data, vocabulary), *_check_nested(space)]
    known = None
    for written, values in space.items():
        mistake = _check_path(written, whole.data)
        if mistake:
            mistakes.append(mistake)
        elif parameter := _read(values):
            known = known or frozenset(_find_mistakes(whole, root, vocabulary))
            mistakes += _check_values(written, parameter, whole, known, root, vocabulary)
    return mistakes


@functools.cache
def _defaults() -> Mapping[str, Any]:
    """Return what ``train`` is where nothing is given."""
    fields = {name: field.get_default() for name, field in Train.model_fields.items()}
    given = {name: value for name, value in fields.items() if value is not PydanticUndefined}
    dumped: dict[str, Any] = Train.model_construct(**given).model_dump(mode="json", by_alias=True)
    return dumped


def _completed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec without its search, and with the defaults of ``train``: what a search lays its values over."""
    rest = {key: value for key, value in data.items() if key != "optimize"}
    model = data["model"] if isinstance(data["model"], dict) else {}
    return {**rest, "train": {**_defaults(), **data["train"]}, "model": {"with": {}, **model}}


def _read(values: Any) -> Parameter | None:
    try:
        return Parameter.model_validate(values)
    except ValidationError:
        return None  # which the section reports


def _check_objectives(data: dict[str, Any], vocabulary: Vocabulary) -> Iterator[Mistake]:
    """A search looks for what the training of this task reports."""
    loss = data["train"].get("loss", Train.model_fields["loss"].default)
    task = vocabulary.task_of(loss)
    reported = [*(f"validation.{score}" for score in task.scores), LOSS, PARAMETERS] if task else []
    for key in ("maximize", "minimize"):
        written = references.get(data, ("optimize", "search", key))
        names = written if isinstance(written, list) else [written]
        for name in names:
            if reported and name in vocabulary.names("objective") and name not in reported:
                what = f"with `loss: {loss}` training reports no {name}"
                yield Mistake(("optimize", "search", key), what, f"look for {' or '.join(reported)}")


def _check_nested(space: Mapping[str, Any]) -> Iterator[Mistake]:
    """Refuse one part inside another: their order would decide which value applies."""
    for inner, outer in itertools.permutations(space, 2):
        if inner.startswith(f"{outer}."):
            yield Mistake(("optimize", "space", inner), f"{inner} is inside {outer}", "vary one of them", key=True)


def _check_path(written: str, data: dict[str, Any]) -> Mistake | None:
    """Return what is wrong with the path of a part."""
    path, at = split_path(written), ("optimize", "space", written)
    match path:
        case ("train", _, *_):
            why = FIXED.get(path[:2])
            if why:
                return Mistake(at, f"a search can't vary `{'.'.join(path[:2])}`: {why}", key=True)
        case ("model", "with", _, *_) if references.has_weights(data):
            what = "a search can't vary the model: its weights are those of this one"
            return Mistake(at, what, "vary parts of `train`", key=True)
        case ("model", "with", _, *_):
            if len(path) > 3 and not _is_there(data, path):  # no signature says what may be in an argument
                return Mistake(at, f"{written} is not a part of this spec", "give it a value under `model`", key=True)
        case _:
            what = f"a search varies parts of `train` and of `model.with`, not {written!r}"
            return Mistake(at, what, did_you_mean(written, _parts(data)), key=True)
    try:
        put(data, path, None)
    except LookupError as error:
        what = f"{written} is not a part of this spec: there is nothing in `{error.args[0]}`"
        return Mistake(at, what, did_you_mean(written, _parts(data)), key=True)
    return None


def _is_there(data: Any, path: SpecPath) -> bool:
    parent = references.get(data, path[:-1])
    return isinstance(parent, dict) and path[-1] in parent


def _parts(data: Mapping[str, Any]) -> list[str]:
    """Return the paths of all parts that may be varied."""
    found = [*_leaves(data["train"], ("train",)), *_leaves(data["model"]["with"], ("model", "with"))]
    return [".".join(path) for path in found if path[:2] not in FIXED]


def _leaves(part: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(part, dict) and part:
        for key, under in part.items():
            yield from _leaves(under, (*path, str(key)))
    elif part is not None:
        yield path


def _check_values(
    written: str,
    parameter: Parameter,
    whole: Cell,
    known: frozenset[tuple[str, str]],
    root: Path,
    vocabulary: Vocabulary,
) -> Iterator[Mistake]:
    """Put each end of a range, or each value of a choice, into the spec, and yield what is wrong with it then.

    What is wrong whatever the value is concerns the path. ``known`` are the mistakes without the search.
    """
    at: SpecPath = ("optimize", "space", written)
    found = []
    for value in parameter.values:
        changed = replace(whole, data=put(whole.data, split_path(written), value))
        found.append({each: None for each in _find_mistakes(changed, root, vocabulary) if each not in known})
    always = [each for each in found[0] if all(each in mistakes for mistakes in found)]
    yield from (Mistake(at, what, hint, key=True) for what, hint in always)
    for index, mistakes in enumerate(found if not always else ()):
        yield from (Mistake((*at, parameter.kind, index), what, hint) for what, hint in mistakes)


def _find_mistakes(cell: Cell, root: Path, vocabulary: Vocabulary) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a spec, and what to do, as far as a model and a training decide it."""
    try:
        tree_form(vocabulary).model_validate(cell.data, context=vocabulary)
    except ValidationError as error:
        yield from ((each.what, each.hint) for each in explain(error.errors(include_url=False), cell, vocabulary))
    yield from ((each.what, each.hint) for each in references.check_references(cell.data, root, vocabulary))
