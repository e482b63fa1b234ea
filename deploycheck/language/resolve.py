"""``extends`` and ``matrix``: from files to the plain data of each cell, with where every part came from."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploycheck.language.errors import Place, SpecError, SpecErrors, did_you_mean
from deploycheck.language.source import Document, Path_, read


@dataclass(frozen=True)
class Cell:
    """One expanded spec: its data, its label (``seed=1``, or empty), and the files it comes from, child first.

    ``replaced`` says which parts the matrix set, and where their values stand.
    """

    data: dict[str, Any]
    label: str
    chain: tuple[Document, ...]
    replaced: Mapping[Path_, Path_] = field(default_factory=dict)

    def place(self, path: Path_, *, key: bool = False) -> Place:
        """Return where the part at ``path`` is written: in the spec, its matrix, or a standard it extends."""
        for target, origin in self.replaced.items():
            if path[: len(target)] == target:
                return self.chain[0].place(origin)
        document = max(self.chain, key=lambda document: document.depth(path))  # the first of equals: the child
        return document.place(path, key=key)


def resolve(path: Path, root: Path) -> tuple[Cell, ...]:
    """Read a spec and what it extends, merge them, and expand its matrix."""
    chain = _chain(path, root)
    misplaced = [error for document in chain for error in _only_in_specs(document)]
    if misplaced:
        raise SpecErrors(misplaced)
    merged: dict[str, Any] = {}
    for document in reversed(chain):
        merged = _merge(merged, document.data)
    return tuple(_cells(merged, chain))


def _only_in_specs(document: Document) -> list[SpecError]:
    """A standard (no model) is completed by the specs that extend it; some parts only they can have."""
    hint = "add the model, or leave it to the specs that extend this"
    return [
        SpecError(f"a standard can't have `{name}`", document.place((name,), key=True), hint)
        for name in ("promote", "matrix", "waive")
        if name in document.data and "model" not in document.data
    ]


def _chain(path: Path, root: Path) -> tuple[Document, ...]:
    """Return the spec's document and those it extends, child first."""
    chain = [read(path, _shown(path, root))]
    seen = {path.resolve()}
    while isinstance(extends := chain[-1].data.get("extends"), str):
        place = chain[-1].place(("extends",))
        parent = chain[-1].path.parent / extends
        if not _is_name(parent):
            raise SpecErrors([SpecError(f"{extends[:80]!r} is no file name", place)])
        if not parent.resolve().is_relative_to(root.resolve()):
            raise SpecErrors(
                [SpecError(f"{extends} lies outside of {root.name}/", place, "a standard lies in the project")]
            )
        if parent.resolve() in seen:
            raise SpecErrors([SpecError(f"{extends} extends itself, directly or not", place)])
        if not parent.is_file():
            others = [str(p.relative_to(chain[-1].path.parent)) for p in chain[-1].path.parent.rglob("*.yaml")]
            raise SpecErrors([SpecError(f"there is no file {extends}", place, did_you_mean(extends, others))])
        seen.add(parent.resolve())
        document = read(parent, _shown(parent, root))
        if "model" in document.data:
            hint = "move what they share into a spec without a `model`"
            raise SpecErrors([SpecError(f"{extends} is no standard: it has a model", place, hint)])
        chain.append(document)
    return tuple(chain)


def _is_name(path: Path) -> bool:
    """Whether the system takes a path for one, whether or not there is a file."""
    try:
        path.resolve().exists()
    except (OSError, ValueError):
        return False
    return True


def _shown(path: Path, root: Path) -> str:
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return str(path)


_FIXED = ("deploycheck", "extends", "matrix")
"""Keys that a matrix can't vary: they are what makes it one."""
_OWN = ("extends", "description", "owner", "name")
"""Keys that speak of one file and aren't inherited."""


def _merge(parent: Mapping[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    inherited = {key: value for key, value in parent.items() if key not in _OWN}
    return _deep(inherited, child)


def _deep(parent: Mapping[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(parent)
    for key, value in child.items():
        under = merged.get(key)
        # One key of a choice replaces the other: {adam: ...} over {sgd: ...} is adam.
        replaces = key in ("optimizer", "schedule", "arguments", "with")
        if isinstance(value, dict) and isinstance(under, dict) and not replaces:
            merged[key] = _deep(under, value)
        else:
            merged[key] = value
    return merged


def _cells(merged: dict[str, Any], chain: tuple[Document, ...]) -> list[Cell]:
    matrix = merged.get("matrix")
    if not isinstance(matrix, dict) or not matrix:
        return [Cell(merged, "", chain)]
    errors = []
    axes: list[list[tuple[Path_, Path_, Any]]] = []
    for key, values in matrix.items():
        target = tuple(key.split("."))
        overlapping = [other for other in matrix if other != key and f"{key}.".startswith(f"{other}.")]
        if overlapping or target[0] in _FIXED:
            what = f"{key} lies within {overlapping[0]}" if overlapping else f"a matrix can't vary {key}"
            errors.append(SpecError(what, chain[0].place(("matrix", key), key=True), "vary the values themselves"))
        elif not isinstance(values, list) or not values:
            errors.append(SpecError("expected a list of values", chain[0].place(("matrix", key))))
        elif not _names_something(merged, target):
            hint = "a matrix key is a path to a value that the spec has, such as data.split.seed"
            errors.append(
                SpecError(f"{key} names nothing in this spec", chain[0].place(("matrix", key), key=True), hint)
            )
        else:
            axes.append([(target, ("matrix", key, index), value) for index, value in enumerate(values)])
    if errors:
        raise SpecErrors(errors)
    lasts = [key.rpartition(".")[2] for key in matrix]
    names = {key: last if lasts.count(last) == 1 else key for key, last in zip(matrix, lasts, strict=True)}
    cells = []
    for choice in itertools.product(*axes):
        data = copy.deepcopy({key: value for key, value in merged.items() if key != "matrix"})
        for target, _, value in choice:
            _set(data, target, value)
        label = ",".join(f"{names['.'.join(map(str, target))]}={_word(value)}" for target, _, value in choice)
        cells.append(Cell(data, label, chain, {target: origin for target, origin, _ in choice}))
    if len({cell.label for cell in cells}) < len(cells):
        raise SpecErrors([SpecError("two cells of the matrix are the same", chain[0].place(("matrix",), key=True))])
    return cells


def _names_something(data: Any, path: Path_) -> bool:
    for part in path:
        if not isinstance(data, dict) or part not in data:
            return False
        data = data[part]
    return True


def _set(data: dict[str, Any], path: Path_, value: Any) -> None:
    for part in path[:-1]:
        data = data[str(part)]
    data[str(path[-1])] = copy.deepcopy(value)


def _word(value: Any) -> str:
    """Return a value as an id may hold it: no brackets, no spaces, no ``::``."""
    if isinstance(value, list):
        return "-".join(map(_word, value))
    if isinstance(value, dict):
        return "-".join(f"{key}-{_word(part)}" for key, part in value.items())
    return re.sub(r"[\[\]\s]+", "_", str(value).replace("::", ":"))
