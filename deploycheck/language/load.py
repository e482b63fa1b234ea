"""From a file to valid specs, or to every mistake in it at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deploycheck.language import crosscheck, references, space
from deploycheck.language.errors import Mistake, Place, SpecError, SpecErrors, SpecPath
from deploycheck.language.expect import (
    Expectation,
    read_expectations,
    read_standards_expectations,
    read_within,
)
from deploycheck.language.explain import explain
from deploycheck.language.exported import check_exported
from deploycheck.language.fields import Section
from deploycheck.language.optimize import Optimize
from deploycheck.language.resolve import Cell, resolve
from deploycheck.language.source import Document
from deploycheck.language.spec import Data, Model, OwnMetric, Promote, Serve, Train, Waiver
from deploycheck.language.tighten import find_loosened
from deploycheck.language.tree import tree_form
from deploycheck.language.variants import Compress
from deploycheck.language.vocabulary import Metric, Vocabulary

ENOUGH_ERRORS = 100
"""After a cell of a matrix with which there are more mistakes than this, no other cell is read."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One spec (one cell of its matrix), valid as a whole.

    ``digest`` covers everything that the spec says. ``task`` is the name of the task that its loss selects;
    ``sections`` are those that extensions add, by name.
    """

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
    task: str
    optimize: Optimize | None
    compress: Compress | None
    serve: Serve | None
    promote: Promote | None
    metrics: dict[str, OwnMetric]
    waive: dict[str, Waiver]
    sections: Mapping[str, Section]
    expectations: tuple[Expectation, ...]
    cell: Cell

    def place(self, *path: str | int, key: bool = False) -> Place:
        """Return where a part is written."""
        return self.cell.place(path, key=key)


def load(path: Path, root: Path, vocabulary: Vocabulary) -> tuple[Spec, ...]:
    """Read a spec file and return its specs, one per cell of its matrix; none for a standard, which has no model.

    ``root`` is the project: the standards that the spec extends must be in it, and the code that it names in it or
    where Python can import it. Raises ``SpecErrors`` with every mistake. No code of the project is imported or run.
    """
    specs: list[Spec] = []
    cells, errors = resolve(path, root)
    for cell in cells:
        try:
            spec = _validate(path, cell, root, vocabulary)
            specs += [spec] if spec else []
        except SpecErrors as found:
            errors += found.errors
        if len({(error.place, error.what) for error in errors}) > ENOUGH_ERRORS:
            break  # the cells that are left repeat most of them
    if errors:
        raise SpecErrors(errors)
    return tuple(specs)


def _validate(path: Path, cell: Cell, root: Path, installed: Vocabulary) -> Spec | None:
    hint = "give it a value, or leave it out"
    errors = [SpecError("has no value", cell.place(empty), hint) for empty in _find_empty(cell.data)]
    tree = None
    try:
        tree = tree_form(installed).model_validate(cell.data, context=installed)
    except ValidationError as error:
        errors += explain(error.errors(include_url=False), cell, installed)
    own, misdefined = _read_own_metrics(cell.data)
    vocabulary = installed.extended(own)
    expected, mistakes = read_expectations(cell.data, vocabulary)
    within, unfit = read_within(cell.data, vocabulary)
    mistakes = [mistake for mistake in (*mistakes, *unfit) if mistake.path[-1] not in misdefined]
    mistakes += references.check_references(cell.data, root, installed)
    mistakes += references.check_registry(cell.data, root, installed)
    mistakes += crosscheck.check_own_metrics(cell.data, installed)
    today = datetime.now(UTC).date()
    mistakes += crosscheck.check_parts(cell.data, [*expected, *within], cell.chain[0].data, vocabulary, today)
    mistakes += space.check_space(cell, root, installed)
    mistakes += check_exported(tree, cell.data, root, installed) if tree else []
    errors += _place(mistakes, cell)
    for document in cell.standards:
        errors += _place(crosscheck.check_standard(document.data), document)
        errors += _place(read_standards_expectations(document, vocabulary)[1], document)
        errors += _place(crosscheck.check_properties(document.data, vocabulary), document)
    errors += find_loosened(cell, expected, vocabulary)
    if errors:
        raise SpecErrors(_first_per_place(errors))
    if tree is None or tree.model is None or tree.data is None:
        return None
    train = tree.train or Train()
    content = json.dumps(cell.data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    task = installed.task_of(train.loss)
    return Spec(
        path=path,
        label=cell.label,
        digest="sha256:" + hashlib.sha256(content.encode()).hexdigest(),
        name=tree.name,
        description=tree.description,
        owner=tree.owner,
        confidence=tree.confidence,
        model=tree.model,
        data=tree.data,
        train=train,
        task=task.name if task else "",
        optimize=tree.optimize,
        compress=tree.compress,
        serve=tree.serve,
        promote=tree.promote,
        metrics=tree.metrics,
        waive=tree.waive,
        sections={name: part for name in installed.sections if (part := getattr(tree, name)) is not None},
        expectations=tuple(expected),
        cell=cell,
    )


def _read_own_metrics(data: dict[str, Any]) -> tuple[dict[str, Metric], set[str]]:
    """Return the metrics that a spec defines, and the names of those with mistakes, which are reported elsewhere."""
    sections = data.get("metrics")
    found, misdefined = {}, set()
    for name, section in sections.items() if isinstance(sections, dict) else ():
        try:
            found[str(name)] = OwnMetric.model_validate(section).word(name)
        except ValidationError:
            misdefined.add(str(name))
    return found, misdefined


def _find_empty(data: Any, path: SpecPath = ()) -> Iterator[SpecPath]:
    """Yield the path of every key without a value; the arguments of someone else's function may have none."""
    if data is None:
        yield path
    elif isinstance(data, dict):
        for key, value in data.items():
            if key not in ("with", "optimizer", "preprocess", "method"):
                yield from _find_empty(value, (*path, key))


def _place(mistakes: Iterable[Mistake], at: Cell | Document) -> list[SpecError]:
    """Return mistakes as errors, each at its place."""
    errors = []
    for mistake in mistakes:
        place = at.place(mistake.path, key=mistake.key)
        if mistake.column is not None:
            quoted = place.text[place.column - 1 : place.column] in ("'", '"')
            place = Place(place.file, place.line, place.column + mistake.column + quoted, place.text)
        errors.append(SpecError(mistake.what, place, mistake.hint))
    return errors


def _first_per_place(errors: Iterable[SpecError]) -> list[SpecError]:
    """Return the first error at each place: a second one there is its echo."""
    first: dict[tuple[str, int, int], SpecError] = {}
    for error in errors:
        first.setdefault((error.place.file, error.place.line, error.place.column), error)
    return list(first.values())
