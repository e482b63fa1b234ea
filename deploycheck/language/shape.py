"""What types the parts of a spec have, by their path."""

from __future__ import annotations

import functools
import types
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from deploycheck.language.errors import SpecPath
from deploycheck.language.fields import Whole
from deploycheck.language.methods import MethodForm, with_methods
from deploycheck.language.tree import Tree, tree_form
from deploycheck.language.variants import Variant, VariantForm
from deploycheck.language.vocabulary import Vocabulary


def known_keys(path: SpecPath, vocabulary: Vocabulary) -> list[str]:
    """Return the keys that the section at ``path`` may have; none if there is no section at ``path``."""
    annotation: Any = tree_form(vocabulary)
    match path:
        case ("compress", "variants", variant, "search", "over", int(), *rest):
            # One method of a recipe is written as a variant is, which may have further keys.
            chain = rest[1:] if rest and isinstance(rest[0], int) else rest
            if not chain:
                annotation, path = with_methods(MethodForm, vocabulary), ()
            else:
                return known_keys(("compress", "variants", variant, *chain), vocabulary)
        case ("compress", "variants", _, "method", str(name), *rest):
            annotation, path = vocabulary.methods.get(name), tuple(rest)
        case ("compress" | "serve", "properties", _, str(name), *rest) if name in vocabulary.properties:
            annotation, path = vocabulary.properties[name].settings, tuple(rest)
        case ("compress", "variants", _, *rest):
            annotation, path = with_methods(VariantForm, vocabulary), tuple(rest)
    for part in path:
        annotation = _part_type(annotation, part)
    model = _model(annotation)
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def is_whole(path: SpecPath) -> bool:
    """Whether the mapping at ``path`` is given as a whole (``fields.Whole``)."""
    return any(
        len(pattern) == len(path) and all(key in ("*", part) for key, part in zip(pattern, path, strict=True))
        for pattern in _whole_mappings()
    )


def replaced_methods(parent: Mapping[str, Any], child: Mapping[str, Any], path: SpecPath) -> Collection[str]:
    """Return the methods of a standard's variant that a spec's own replaces: a variant has one method."""
    if len(path) != 3 or path[:2] != ("compress", "variants"):
        return ()
    shared = ("from", "runtime", "expect")
    return parent.keys() - child.keys() - {*shared} if child.keys() - {*shared} else ()


_OTHER_MODEL: SpecPath = ("compress", "variants", "*", "*", "*", "with")
"""The arguments of another model (``AnotherModel``) in the options of any method that is installed."""


@functools.cache
def _whole_mappings() -> tuple[SpecPath, ...]:
    """Return the paths of the mappings that a spec gives as a whole; ``*`` is any key."""
    return (*_find_whole(Tree, ()), _OTHER_MODEL)


def _find_whole(model: type[BaseModel], path: SpecPath) -> Iterator[SpecPath]:
    for name, field in model.model_fields.items():
        at = (*path, field.alias or name)
        if any(isinstance(mark, Whole) for mark in (*field.metadata, *_marks(field.annotation))):
            yield at
        for member in _members(field.annotation):
            is_mapping = get_origin(member) is dict
            inner = _model(get_args(member)[1] if is_mapping else member)
            if inner:
                form = VariantForm if inner is Variant else inner
                yield from _find_whole(form, (*at, "*") if is_mapping else at)


def _marks(annotation: Any) -> Iterator[Any]:
    """Yield the marks in ``Annotated`` of a type's alternatives."""
    yield from getattr(annotation, "__metadata__", ())
    if get_origin(annotation) in (Union, types.UnionType):
        for alternative in get_args(annotation):
            yield from _marks(alternative)


def _part_type(annotation: Any, part: str | int) -> Any:
    """Return the type of one part of a value; None where the type has no such part."""
    model = _model(annotation)
    if model:
        fields = model.model_fields.items()
        return next((field.annotation for name, field in fields if part == (field.alias or name)), None)
    for candidate in _members(annotation):
        if get_origin(candidate) in (dict, tuple, list):
            return get_args(candidate)[1 if get_origin(candidate) is dict else 0]
    return None


def _model(annotation: Any) -> type[BaseModel] | None:
    for candidate in _members(annotation):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _members(annotation: Any) -> list[Any]:
    """Return the alternatives of a type, without their ``Annotated``."""
    if hasattr(annotation, "__metadata__"):
        return _members(annotation.__origin__)
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [annotation]
