"""From a file to specs that hold together, or to every mistake in it at once."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from deploycheck.language import crosscheck
from deploycheck.language.errors import Place, SpecError, SpecErrors, did_you_mean
from deploycheck.language.expect import Expectation, Mistake, expectations, understood
from deploycheck.language.names import IMPORT_PATH, import_hint
from deploycheck.language.resolve import Cell, resolve
from deploycheck.language.source import Document, Path_
from deploycheck.language.spec import Compress, Data, Model, Optimize, OwnMetric, Promote, Serve, Train, Tree, Waiver
from deploycheck.language.tighten import loosened
from deploycheck.language.vocabulary import Metric, Vocabulary

_KEY = re.compile(r"""^\ufeff?["']?([A-Za-z_][\w-]*)["']?\s*:""", re.MULTILINE)


@dataclass(frozen=True)
class Spec:
    """One spec (one cell of its matrix), valid as a whole. ``digest`` covers all that it says."""

    path: Path
    label: str
    digest: str
    name: str
    description: str
    owner: str
    confidence: float
    model: Model
    data: Data
    train: Train
    optimize: Optimize | None
    compress: Compress | None
    serve: Serve | None
    promote: Promote | None
    metrics: dict[str, OwnMetric]
    waive: dict[str, Waiver]
    expectations: tuple[Expectation, ...]
    cell: Cell

    def place(self, *path: str | int, key: bool = False) -> Place:
        """Return where a part is written."""
        return self.cell.place(path, key=key)


def is_spec(text: str) -> bool:
    """Whether a file says that it is a spec, by a top-level key ``deploycheck``."""
    return any(match[1] == "deploycheck" for match in _KEY.finditer(text))


def near_miss(text: str) -> str | None:
    """Return the top-level key that was probably meant to be ``deploycheck``, in a file that has none."""
    keys = [match[1] for match in _KEY.finditer(text)]
    close = difflib.get_close_matches("deploycheck", keys, n=1, cutoff=0.8)
    return close[0] if close and close[0] != "deploycheck" else None


def load(path: Path, root: Path, vocabulary: Vocabulary) -> tuple[Spec, ...]:
    """Read a spec file and return its specs, one a cell of its matrix; none for a standard, which has no model.

    ``root`` is the project: what the spec extends and the code it names lie in it or on the import path.
    Raises ``SpecErrors`` with every mistake. Nothing is imported and nothing is run.
    """
    specs: list[Spec] = []
    cells, errors = resolve(path, root)
    for cell in cells:
        try:
            spec = _validate(path, cell, root, vocabulary)
            specs += [spec] if spec else []
        except SpecErrors as found:
            errors += found.errors
    if errors:
        raise SpecErrors(errors)
    return tuple(specs)


def _validate(path: Path, cell: Cell, root: Path, vocabulary: Vocabulary) -> Spec | None:
    errors = [
        SpecError("has no value", cell.place(where), "give it one, or leave it out") for where in _empty(cell.data)
    ]
    tree = None
    try:
        tree = Tree.model_validate(cell.data)
    except ValidationError as error:
        # A standard is completed by the specs that extend it: what is missing in it is no mistake.
        incomplete = {"missing"} if "model" not in cell.data else set()
        details = [detail for detail in error.errors(include_url=False) if detail["type"] not in incomplete]
        errors += [_located(detail, cell) for detail in details if not _is_mistyped(detail, details)]
    own, misdefined = _own_metrics(cell.data)
    builtin, vocabulary = vocabulary, vocabulary.extended(own)
    expected, mistakes = expectations(cell.data, vocabulary)
    mistakes = [mistake for mistake in mistakes if mistake.path[-1] not in misdefined]
    mistakes += crosscheck.own_metrics(cell.data, root, builtin)
    mistakes += crosscheck.names(cell.data, root, vocabulary)
    mistakes += crosscheck.structure(cell.data, expected, cell.chain[0].data)
    errors += _mistakes(cell, mistakes)
    for document in cell.standards:
        errors += _mistakes(document, crosscheck.standard(document.data))
        errors += _mistakes(document, understood(document, vocabulary)[1])
    errors += loosened(cell, expected, vocabulary)
    if errors:
        raise SpecErrors(_without_echoes(errors))
    if tree is None or tree.model is None:
        return None
    content = json.dumps(cell.data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    sections = {name: getattr(tree, name) for name in Spec.__dataclass_fields__ if name in Tree.model_fields}
    return Spec(
        path=path, label=cell.label, digest="sha256:" + hashlib.sha256(content.encode()).hexdigest(),
        expectations=tuple(expected), cell=cell, **sections,
    )  # fmt: skip


def _own_metrics(data: dict[str, Any]) -> tuple[dict[str, Metric], set[str]]:
    """Return the metrics that a spec defines itself, and the names of those that are none: that is reported as such."""
    sections = data.get("metrics")
    found, misdefined = {}, set()
    for name, section in sections.items() if isinstance(sections, dict) else ():
        try:
            found[str(name)] = OwnMetric.model_validate(section).word(name)
        except ValidationError:
            misdefined.add(str(name))
    return found, misdefined


def _empty(data: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Yield the path of every key with no value; the arguments of someone else's function may have none."""
    if data is None:
        yield path
    elif isinstance(data, dict):
        for key, value in data.items():
            if key not in ("with", "optimizer", "preprocess", "method"):
                yield from _empty(value, (*path, key))


def _mistakes(at: Cell | Document, mistakes: list[Mistake]) -> list[SpecError]:
    errors = []
    for mistake in mistakes:
        place = at.place(mistake.path, key=mistake.key)
        if mistake.column is not None:
            quoted = place.text[place.column - 1 : place.column] in ("'", '"')
            place = Place(place.file, place.line, place.column + mistake.column + quoted, place.text)
        errors.append(SpecError(mistake.what, place, mistake.hint))
    return errors


def _without_echoes(errors: list[SpecError]) -> list[SpecError]:
    """Drop a second error at a place that already has one."""
    first: dict[tuple[str, int, int], SpecError] = {}
    for error in errors:
        first.setdefault((error.place.file, error.place.line, error.place.column), error)
    return list(first.values())


def _is_mistyped(detail: Any, details: list[Any]) -> bool:
    """Whether a key is missing because it stands beside, mistyped: that is one mistake, not two."""
    *parent, key = detail["loc"]
    unknown = [str(other["loc"][-1]) for other in details if other["type"] == "extra_forbidden"
               and [*other["loc"][:-1]] == parent]  # fmt: skip
    return detail["type"] == "missing" and bool(difflib.get_close_matches(str(key), unknown))


_EXPECTED = {
    "tuple_type": "a list", "list_type": "a list", "dict_type": "a mapping", "model_type": "a mapping",
    "float_type": "a number", "int_type": "a whole number", "string_type": "a text", "bool_type": "true or false",
}  # fmt: skip
"""Pydantic's names of what it expected, to what YAML calls it."""


def _located(detail: Any, cell: Cell) -> SpecError:
    """Turn one of pydantic's errors into ours: placed, in words, with a suggestion."""
    loc: Path_ = tuple(part for part in detail["loc"] if part != "[key]")
    known = _known_keys(loc[:-1])
    given = detail.get("input")
    match detail["type"]:
        case "extra_forbidden":
            where = f"in `{'.'.join(map(str, loc[:-1]))}`" if len(loc) > 1 else "at the top"
            return SpecError(
                f"unknown key {loc[-1]!r} {where}",
                cell.place(loc, key=True),
                did_you_mean(str(loc[-1]), known),
            )
        case "missing":
            parent = f"`{'.'.join(map(str, loc[:-1]))}`" if len(loc) > 1 else "the spec"
            return SpecError(f"{parent} has no {loc[-1]!r}", cell.place(loc[:-1], key=True), f"add `{loc[-1]}: ...`")
        case "language_version":
            hint = "this version of deploycheck reads `deploycheck: 1`"
            return SpecError(f"unknown language version {given!r}", cell.place(loc), hint)
        case "literal_error":
            choices = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
            what = f"{given!r} is not one of: {', '.join(choices)}"
            return SpecError(what, cell.place(loc, key="[key]" in detail["loc"]), did_you_mean(str(given), choices))
        case "too_long" | "too_short" if isinstance(given, dict):
            found = ", ".join(given) or "none"
            return SpecError(
                f"`{'.'.join(map(str, loc))}` takes one name with its arguments, found {found}",
                cell.place(loc),
            )
        case "string_pattern_mismatch" if IMPORT_PATH.pattern in detail["ctx"]["pattern"]:
            return SpecError(f"{given!r} is no import path", cell.place(loc), import_hint(str(given)))
        case "string_pattern_mismatch":
            what = f"{given!r} is no name: small letters, digits, '.', '_' and '-', at most 64"
            return SpecError(what, cell.place(loc, key="[key]" in detail["loc"]))
        case _:
            what = detail["msg"][:1].lower() + detail["msg"][1:]
            if detail["type"] in _EXPECTED:
                what = f"expected {_EXPECTED[detail['type']]}"
            found = "" if isinstance(given, dict | list) else f", found {given!r}"
            return SpecError(f"`{'.'.join(map(str, loc))}`: {what}{found}", cell.place(loc))


def _known_keys(loc: Path_) -> list[str]:
    """Return the keys that the section at ``loc`` may have."""
    annotation: Any = Tree
    for part in loc:
        annotation = _inner(annotation, part)
    model = _model(annotation)
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _inner(annotation: Any, part: str | int) -> Any:
    model = _model(annotation)
    if model:
        for name, field in model.model_fields.items():
            if part == (field.alias or name):
                return field.annotation
        return None
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
    """Return an annotation's alternatives, with ``Annotated`` taken off."""
    if hasattr(annotation, "__metadata__"):
        return _members(annotation.__origin__)
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [annotation]
