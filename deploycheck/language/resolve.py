"""``extends`` and ``matrix``: from files to the plain data of each cell, with the place of every part."""

from __future__ import annotations

import copy
import functools
import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploycheck.language.errors import Place, SpecError, SpecErrors, SpecPath, did_you_mean
from deploycheck.language.shape import is_whole, replaced_methods
from deploycheck.language.source import Document, read, read_standard

MOST_CELLS, MOST_AXES = 1_000, 32
"""The largest matrix; each of its cells is a spec in memory."""
MOST_CELL_BYTES = 100_000_000
"""The text of a spec times its cells."""


@dataclass(frozen=True)
class Cell:
    """One expanded spec: its data, its label (``seed=1``, or empty), and the files it comes from, child first.

    ``replaced`` maps the parts that the matrix sets to the places of their values.
    """

    data: dict[str, Any]
    label: str
    chain: tuple[Document, ...]
    replaced: Mapping[SpecPath, SpecPath] = field(default_factory=dict)

    @property
    def standards(self) -> tuple[Document, ...]:
        """The files that are standards: those the spec extends, and itself where it has no model."""
        return self.chain if "model" not in self.data else self.chain[1:]

    def place(self, path: SpecPath, *, key: bool = False) -> Place:
        """Return where the part at ``path`` is written: in the spec, its matrix, or a standard it extends."""
        for target, origin in self.replaced.items():
            if path[: len(target)] == target:
                return self.chain[0].place(origin)
        document = max(self.chain, key=lambda document: document.depth(path))  # the first of equals: the child
        return document.place(path, key=key)


def resolve(path: Path, root: Path) -> tuple[tuple[Cell, ...], list[SpecError]]:
    """Read a spec and what it extends, merge them, and expand its matrix.

    Returns the cells and what is wrong with the matrix; then there is one cell, the spec without its matrix.
    Raises ``SpecErrors`` where a file can't be read or parsed, or extends what it can't.
    """
    chain = _chain(path, root)
    merged: dict[str, Any] = {}
    for document in reversed(chain):
        merged = _merge(merged, document.data)
    return _expand(merged, chain)


def _chain(path: Path, root: Path) -> tuple[Document, ...]:
    """Return the spec's document and those it extends, child first."""
    root, first = _real(root), path.resolve()
    chain = [read(path, _shown(first, root))]
    seen = {first}
    while isinstance(extends := chain[-1].data.get("extends"), str):

        def refused(what: str, hint: str = "", at: Document = chain[-1]) -> SpecErrors:
            return SpecErrors([SpecError(what, at.place(("extends",)), hint)])

        parent = chain[-1].path.parent / extends
        try:
            real, there = parent.resolve(), parent.is_file()
        except (OSError, ValueError, RuntimeError) as error:  # a name too long, a NUL in it, a circle of links
            raise refused(f"no file can be reached by {extends[:80]!r}") from error
        if not real.is_relative_to(root):
            raise refused(f"{extends} is outside of {root.name}/", "move the standard into the project")
        if real in seen:
            raise refused(f"{extends} extends itself, directly or not")
        if not there:
            others = [str(p.relative_to(chain[-1].path.parent)) for p in chain[-1].path.parent.rglob("*.yaml")]
            raise refused(f"there is no file {extends}", did_you_mean(extends, others))
        seen.add(real)
        document = read_standard(parent, _shown(real, root))
        if "model" in document.data:
            hint = "move what they share into a spec without a `model`"
            raise refused(f"{extends} is not a standard: it has a model", hint)
        chain.append(document)
    return tuple(chain)


@functools.lru_cache(maxsize=16)
def _real(root: Path) -> Path:
    """Return the project's folder without links; asked for by every spec in it."""
    return root.resolve()


def _shown(path: Path, root: Path) -> str:
    """Return a resolved path as errors name it: relative to the project's root, if it is in the project."""
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return str(path)


_OWN = ("extends", "description", "owner", "name")
"""Keys that describe one file, and aren't inherited."""


def _merge(parent: Mapping[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    inherited = {key: value for key, value in parent.items() if key not in _OWN}
    return _merge_parts(inherited, child, ())


def _merge_parts(parent: Mapping[str, Any], child: Mapping[str, Any], path: SpecPath) -> dict[str, Any]:
    """Lay a spec's part over its standard's: mappings are merged, all else is replaced.

    What names one of several things is replaced as a whole: ``{adam: ...}`` over ``{sgd: ...}`` is adam.
    """
    replaced = replaced_methods(parent, child, path)
    merged = {key: value for key, value in parent.items() if key not in replaced}
    for key, value in child.items():
        under, at = merged.get(key), (*path, key)
        if isinstance(value, dict) and isinstance(under, dict) and not is_whole(at):
            merged[key] = _merge_parts(under, value, at)
        else:
            merged[key] = value
    return merged


@dataclass(frozen=True)
class _Choice:
    """One value of a matrix: ``target`` is the part that it sets, ``origin`` where the matrix has it."""

    target: SpecPath
    origin: SpecPath
    value: Any


def _expand(merged: dict[str, Any], chain: tuple[Document, ...]) -> tuple[tuple[Cell, ...], list[SpecError]]:
    matrix = merged.get("matrix")
    if not isinstance(matrix, dict) or "matrix" not in chain[0].data:
        return (Cell(merged, "", chain),), []
    spec = {key: value for key, value in merged.items() if key != "matrix"}
    axes, errors = _read_axes(matrix, spec, chain[0])
    labels = _labels([axis[0].target for axis in axes])
    cells = []
    for choices in itertools.product(*axes) if not errors else ():
        data = copy.deepcopy(spec)
        for choice in choices:
            _set(data, choice.target, choice.value)
        label = ",".join(f"{labels[choice.target]}={_label(choice.value)}" for choice in choices)
        cells.append(Cell(data, label, chain, {choice.target: choice.origin for choice in choices}))
    if len({cell.label for cell in cells}) < len(cells):
        errors.append(SpecError("two cells of the matrix are the same", chain[0].place(("matrix",), key=True)))
    return ((Cell(spec, "", chain),), errors) if errors else (tuple(cells), [])


def _read_axes(
    matrix: Mapping[str, Any], spec: Mapping[str, Any], document: Document
) -> tuple[list[list[_Choice]], list[SpecError]]:
    """Return the axes of a matrix, each with its values, and the mistakes in it."""
    axes: list[list[_Choice]] = []
    errors: list[SpecError] = []
    if len(matrix) > MOST_AXES:
        what = f"the matrix varies {len(matrix):,} parts, more than {MOST_AXES}"
        return [], [SpecError(what, document.place(("matrix",), key=True), "vary fewer parts, or split the spec")]
    for key, values in matrix.items():
        target = _target(spec, key)
        if not isinstance(values, list) or not values:
            errors.append(SpecError("expected a list of values", document.place(("matrix", key))))
        elif target is None or key in _FIXED:
            hint = "a matrix key is a path to a value that the spec has, such as data.split.seed"
            what = f"{key} is not a part of this spec" if target is None else f"a matrix can't vary `{key}`"
            errors.append(SpecError(what, document.place(("matrix", key), key=True), hint))
        else:
            axes.append([_Choice(target, ("matrix", key, index), value) for index, value in enumerate(values)])
    if not matrix:
        hint = "give it a path with its values, or leave it out"
        errors.append(SpecError("`matrix` is empty", document.place(("matrix",)), hint))
    count = math.prod(map(len, axes))
    if count > MOST_CELLS:
        what = f"the matrix has {count:,} cells, more than {MOST_CELLS:,}"
        hint = "vary fewer values, or split the spec"
        errors.append(SpecError(what, document.place(("matrix",), key=True), hint))
    elif count * len(document.text) > MOST_CELL_BYTES:
        what = f"{count:,} cells of a spec of {len(document.text):,} characters are too large"
        errors.append(SpecError(what, document.place(("matrix",), key=True), "vary fewer values, or split the spec"))
    return axes, [*errors, *_find_nested(axes, document)]


_FIXED = ("deploycheck", "extends")
"""Keys that decide how the file itself is read."""


def _target(data: Any, key: str) -> SpecPath | None:
    """Return the path that a matrix key names; the parts of a spec may have dots in their own names."""
    if not isinstance(data, dict):
        return None
    if key in data:
        return (key,)
    for part, under in data.items():
        rest = _target(under, key[len(part) + 1 :]) if key.startswith(f"{part}.") else None
        if rest:
            return (part, *rest)
    return None


def _find_nested(axes: list[list[_Choice]], document: Document) -> list[SpecError]:
    """Refuse one axis inside another: their order would decide which value applies."""
    pairs = itertools.permutations([axis[0] for axis in axes], 2)
    return [
        SpecError(f"{inner.origin[1]} is inside {outer.origin[1]}", document.place(inner.origin[:2], key=True))
        for outer, inner in pairs
        if inner.target[: len(outer.target)] == outer.target
    ]


def _labels(targets: list[SpecPath]) -> dict[SpecPath, str]:
    """Return what labels call each target: its last part, or the whole path where two end the same."""
    lasts = [target[-1] for target in targets]
    return {
        target: str(target[-1]) if lasts.count(target[-1]) == 1 else ".".join(map(str, target)) for target in targets
    }


def _set(data: dict[str, Any], path: SpecPath, value: Any) -> None:
    for part in path[:-1]:
        data = data[str(part)]
    data[str(path[-1])] = copy.deepcopy(value)


def _label(value: Any) -> str:
    """Return a value as text that an id can contain: no brackets, no spaces, no controls, no ``::``."""
    match value:
        case list():
            return "-".join(map(_label, value))
        case dict():
            return "-".join(f"{_label(key)}-{_label(item)}" for key, item in value.items())
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[value]
    text = "".join(char if char.isprintable() else "_" for char in str(value))  # a terminal would obey some
    return re.sub(r"[\[\]\s]|::+", "_", text)
