"""``extends`` may only tighten: a spec may demand more than its standard, never less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deploycheck.language.errors import Place, SpecError, SpecPath
from deploycheck.language.expect import Expectation, read_standards_expectations
from deploycheck.language.properties import is_looser
from deploycheck.language.resolve import Cell
from deploycheck.language.source import Document
from deploycheck.language.threshold import ThresholdError, parse_quantity, tighter_or_equal
from deploycheck.language.tree import Tree
from deploycheck.language.vocabulary import Dimension, Vocabulary

_DEFAULT: float = Tree.model_fields["confidence"].default


@dataclass(frozen=True)
class _Demand:
    """A check that a standard or a section demands; ``at`` says where, and ``confidence`` is that file's."""

    check: Expectation
    confidence: float
    at: Cell | Document


def find_loosened(cell: Cell, expected: list[Expectation], vocabulary: Vocabulary) -> list[SpecError]:
    """Return an error for every check that demands less than one above it, or that is missing, unless it is waived.

    Above a spec's check are the same check in the standards that it extends and, above a variant's own, the one
    that its section expects of all variants; a variant has no properties of its own. Works on plain data, so that
    a spec whose structure is wrong elsewhere still gets these found.
    """
    confidence = _effective_confidence([cell.data], _DEFAULT)
    standards = [
        _Demand(check, _effective_confidence([above.data for above in cell.chain[depth:]], confidence), document)
        for depth, document in enumerate(cell.chain)
        if depth > 0
        for check in read_standards_expectations(document, vocabulary)[0]
    ]
    own = [_Demand(check, confidence, cell) for check in expected if check.variant is None and not check.property_name]
    waive = cell.data.get("waive")
    waived = set(waive) if isinstance(waive, dict) else set()
    errors = [*_check_confidence(cell, confidence), *_check_metrics(cell)]
    above: dict[str, list[_Demand]] = {}
    for demand in (*standards, *own):
        above.setdefault(_key(demand.check), []).append(demand)
    for check in expected:
        for demand in above.get(_key(check), ()):
            if demand.check is check or demand.check.variant not in (None, check.variant):
                continue
            what = _describe_loosening(check, confidence, demand)
            if what and _key(check) not in waived:
                errors.append(_error(what, cell.place(check.path), demand))
    named = {_key(check) for check in expected if check.property_name}
    for demand in standards:
        at = demand.check.path
        is_there = _key(demand.check) in named if demand.check.property_name else _is_there(cell.data, at)
        if not is_there and _key(demand.check) not in waived:
            errors.append(_error("this leaves out a check that", cell.place(demand.check.path), demand))
    return errors


def _key(check: Expectation) -> str:
    return f"{check.section}.{check.name}"


def _is_there(data: Any, path: SpecPath) -> bool:
    for part in path:
        if not isinstance(data, dict) or part not in data:
            return False
        data = data[part]
    return True


def _describe_loosening(check: Expectation, confidence: float, demand: _Demand) -> str | None:
    upper = demand.check
    if upper.property_name and is_looser(check.settings, upper.settings):
        return f"these settings of {check.name} may be looser than those that"
    if upper.severity == "error" and check.severity == "warn":
        return "`severity: warn` loosens a check that"
    # The standard's threshold means the standard's confidence, also where the spec raises its own. A spec that
    # lowers its own is refused once, for that, not for every check.
    held_to = min(demand.confidence, confidence)
    same = check.threshold is upper.threshold
    if not same and not tighter_or_equal(check.threshold, confidence, upper.threshold, held_to):
        return f"'{check.threshold.text}' is looser than '{upper.threshold.text}', which"
    if upper.slices is not None and check.slices != upper.slices:
        return "this check has no such slices as"
    if upper.baseline == "required" and check.baseline != "required":
        return "this check doesn't have the required baseline that"
    return None


def _error(what: str, at: Place, demand: _Demand) -> SpecError:
    above = demand.at.place(demand.check.path)
    hint = f'tighten it, or waive it: waive: {{"{_key(demand.check)}": {{because: ..., until: YYYY-MM-DD, by: ...}}}}'
    return SpecError(f"{what} {above.file}:{above.line} asks for", at, hint)


def _check_confidence(cell: Cell, confidence: float) -> list[SpecError]:
    """A spec's own confidence may not be lower than a standard's, and a standard's must be valid."""
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


def _check_metrics(cell: Cell) -> list[SpecError]:
    """A metric that a standard defines can't be redefined: another metric of its name could meet any threshold."""
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


def _effective_confidence(chain: Sequence[Mapping[str, Any]], default: float) -> float:
    """Return the confidence that applies in a file: its own, or the nearest above it, or ``default``."""
    for data in chain:
        try:
            return parse_quantity(str(data["confidence"]), Dimension.PROPORTION)
        except (KeyError, ThresholdError):
            continue
    return default
