"""``extends`` may only tighten: what a standard asks is the least that a spec asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deploycheck.language.errors import Place, SpecError, SpecPath
from deploycheck.language.expect import Expectation, read_standards_expectations
from deploycheck.language.resolve import Cell
from deploycheck.language.source import Document
from deploycheck.language.threshold import ThresholdError, parse_quantity, tighter_or_equal
from deploycheck.language.tree import Tree
from deploycheck.language.vocabulary import Dimension, Vocabulary

_DEFAULT: float = Tree.model_fields["confidence"].default


@dataclass(frozen=True)
class _Asked:
    """A check as a file or a section above asks for it; ``at`` says where, and ``confidence`` is that file's."""

    check: Expectation
    confidence: float
    at: Cell | Document


def find_loosened(cell: Cell, expected: list[Expectation], vocabulary: Vocabulary) -> list[SpecError]:
    """Return an error for every check that asks less than one above it, or that is gone, unless it is waived.

    Above a spec's check stand the same check in the standards it extends and, above a variant's own, the one
    that its section expects of all variants. Works on plain data, so that a spec whose structure is wrong
    elsewhere still gets these found.
    """
    confidence = _effective([cell.data], _DEFAULT)
    standards = [
        _Asked(check, _effective([above.data for above in cell.chain[depth:]], confidence), document)
        for depth, document in enumerate(cell.chain)
        if depth > 0
        for check in read_standards_expectations(document, vocabulary)[0]
    ]
    own = [_Asked(check, confidence, cell) for check in expected if check.variant is None]
    waive = cell.data.get("waive")
    waived = set(waive) if isinstance(waive, dict) else set()
    errors = [*_confidence(cell, confidence), *_redefined(cell)]
    above: dict[str, list[_Asked]] = {}
    for asked in (*standards, *own):
        above.setdefault(_key(asked.check), []).append(asked)
    for check in expected:
        for asked in above.get(_key(check), ()):
            if asked.check is check or asked.check.variant not in (None, check.variant):
                continue
            what = _looser(check, confidence, asked)
            if what and _key(check) not in waived:
                errors.append(_error(what, cell.place(check.path), asked))
    for asked in standards:
        if not _stands(cell.data, asked.check.path) and _key(asked.check) not in waived:
            errors.append(_error("this leaves out a check that", cell.place(asked.check.path), asked))
    return errors


def _key(check: Expectation) -> str:
    return f"{check.section}.{check.name}"


def _stands(data: Any, path: SpecPath) -> bool:
    for part in path:
        if not isinstance(data, dict) or part not in data:
            return False
        data = data[part]
    return True


def _looser(check: Expectation, confidence: float, asked: _Asked) -> str | None:
    upper = asked.check
    if upper.severity == "error" and check.severity == "warn":
        return "`severity: warn` loosens a check that"
    # The standard's threshold means the standard's confidence, also where the spec raises its own. A spec that
    # lowers its own is refused once, for that, not for every check.
    held_to = min(asked.confidence, confidence)
    same = check.threshold is upper.threshold
    if not same and not tighter_or_equal(check.threshold, confidence, upper.threshold, held_to):
        return f"'{check.threshold.text}' is looser than '{upper.threshold.text}', which"
    if upper.slices is not None and check.slices != upper.slices:
        return "this hasn't the slices that"
    if upper.baseline == "required" and check.baseline != "required":
        return "this hasn't the required baseline that"
    return None


def _error(what: str, at: Place, asked: _Asked) -> SpecError:
    above = asked.at.place(asked.check.path)
    hint = f'tighten it, or waive it: waive: {{"{_key(asked.check)}": {{because: ..., until: YYYY-MM-DD, by: ...}}}}'
    return SpecError(f"{what} {above.file}:{above.line} asks for", at, hint)


def _confidence(cell: Cell, confidence: float) -> list[SpecError]:
    """A spec's own confidence may not lie under a standard's, and a standard's must be one."""
    errors = []
    for document in cell.chain[1:]:
        if "confidence" not in document.data:
            continue
        place = document.place(("confidence",))
        try:
            asked = parse_quantity(str(document.data["confidence"]), Dimension.PROPORTION)
        except ThresholdError as error:
            errors.append(SpecError(f"`confidence`: {error}", place))
            continue
        if confidence < asked:
            least = f"the {asked:.4g} that {place.file}:{place.line} asks for"
            what = f"a confidence of {confidence:.4g} is lower than {least}"
            errors.append(SpecError(what, cell.place(("confidence",)), "raise it"))
    return errors


def _redefined(cell: Cell) -> list[SpecError]:
    """A metric that a standard defines stays what it is: another of its name could make any threshold easy."""
    errors = []
    own = _metrics(cell.data)
    for document in cell.chain[1:]:
        for name, metric in _metrics(document.data).items():
            if own.get(name) != metric:
                place = document.place(("metrics", name))
                what = f"the metric {name!r} is defined at {place.file}:{place.line} already"
                errors.append(SpecError(what, cell.place(("metrics", name)), "choose another name"))
    return errors


def _metrics(data: Mapping[str, Any]) -> dict[str, Any]:
    found = data.get("metrics")
    return found if isinstance(found, dict) else {}


def _effective(chain: Sequence[Mapping[str, Any]], default: float) -> float:
    """Return the confidence that holds in a file: its own, or the nearest above it, or ``default``."""
    for data in chain:
        try:
            return parse_quantity(str(data["confidence"]), Dimension.PROPORTION)
        except (KeyError, ThresholdError):
            continue
    return default
