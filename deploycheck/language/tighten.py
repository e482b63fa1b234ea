"""``extends`` may only tighten: what a standard asks is the least that a spec asks."""

from __future__ import annotations

from typing import Any

from deploycheck.language.errors import Place, SpecError
from deploycheck.language.expect import Expectation, expectations
from deploycheck.language.resolve import Cell
from deploycheck.language.source import Document
from deploycheck.language.spec import Tree
from deploycheck.language.threshold import ThresholdError, parse_quantity, tighter_or_equal
from deploycheck.language.vocabulary import Dimension, Vocabulary


def loosened(cell: Cell, expected: list[Expectation], tree: Tree, vocabulary: Vocabulary) -> list[SpecError]:
    """Return an error for every threshold that asks less than one above it, unless it is waived.

    Above a spec's check stand the same check in the standards it extends and, above a variant's own, the one
    that its section expects of all variants.
    """
    standards = [(document, expectations(document.data, vocabulary)[0]) for document in cell.chain[1:]]
    errors = [*_confidence(cell, tree), *_dropped(cell, expected, standards, tree)]
    for check in expected:
        if f"{check.section}.{check.name}" in tree.waive:
            continue
        above = [(item, document.place(item.path)) for document, items in standards for item in items]
        if check.variant:
            above += [(item, cell.place(item.path)) for item in expected if item.variant is None]
        for item, place in above:
            same = (item.section, item.name) == (check.section, check.name) and item.variant in (
                None,
                check.variant,
            )
            what = _looser(check, item, tree.confidence) if same else None
            if what:
                errors.append(_error(what, cell.place(check.path), place, f"{check.section}.{check.name}"))
    return errors


def _dropped(
    cell: Cell, expected: list[Expectation], standards: list[tuple[Document, list[Expectation]]], tree: Tree
) -> list[SpecError]:
    """A check of a standard may be tightened, not left out: a matrix could replace a whole ``expect``."""
    kept = {(check.section, check.name) for check in expected} | {tuple(name.split(".", 1)) for name in tree.waive}
    return [
        _error(
            "it is left out, which",
            cell.place((item.section,)),
            document.place(item.path),
            f"{item.section}.{item.name}",
        )
        for document, items in standards
        for item in items
        if (item.section, item.name) not in kept
    ]


def _looser(check: Expectation, above: Expectation, confidence: float) -> str | None:
    if above.severity == "error" and check.severity == "warn":
        return "`severity: warn` loosens a check that"
    if above.samples and (check.samples or 0) < above.samples:
        return f"fewer than the {above.samples} samples that"
    if (above.slices and check.slices != above.slices) or (above.baseline == "required" != check.baseline):
        return "without the `slices` or `baseline` of"
    if tighter_or_equal(check.threshold, above.threshold, confidence):
        return None
    return f"'{check.threshold.text}' is looser than '{above.threshold.text}', which"


def _error(what: str, at: Place, above: Place, check: str) -> SpecError:
    hint = f'tighten it, or waive it: waive: {{"{check}": {{because: ..., until: YYYY-MM-DD, by: ...}}}}'
    return SpecError(f"{what} {above.file}:{above.line} asks for", at, hint)


def _confidence(cell: Cell, tree: Tree) -> list[SpecError]:
    """A spec's own confidence may not lie under a standard's."""
    errors = []
    for document in cell.chain[1:]:
        written = document.data.get("confidence")
        asked = _share(written)
        if written is not None and asked is None:
            errors.append(SpecError(f"{written!r} is no confidence, such as 95 %", document.place(("confidence",))))
        if asked is not None and tree.confidence < asked:
            place = document.place(("confidence",))
            least = f"the {asked:.4g} that {place.file}:{place.line} asks for"
            what = f"a confidence of {tree.confidence:.4g} is lower than {least}"
            errors.append(SpecError(what, cell.place(("confidence",)), "raise it"))
    return errors


def _share(written: Any) -> float | None:
    try:
        return parse_quantity(str(written), Dimension.PROPORTION)
    except ThresholdError:
        return None
