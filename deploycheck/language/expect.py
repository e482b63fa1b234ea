"""``expect``: every entry is a check, its threshold held to its metric."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import ValidationError

from deploycheck.language.errors import did_you_mean
from deploycheck.language.source import Document, Path_
from deploycheck.language.spec import Slices
from deploycheck.language.threshold import Threshold, ThresholdError, parse_quantity, parse_threshold
from deploycheck.language.vocabulary import COMPARISONS, Dimension, Metric, Vocabulary

SECTIONS = ("data", "train", "optimize", "compress", "serve")


@dataclass(frozen=True)
class Mistake:
    """Something wrong at a path of a spec; ``column`` counts into the value's text, where that is known."""

    path: Path_
    what: str
    hint: str = ""
    key: bool = False
    column: int | None = None


@dataclass(frozen=True)
class Expectation:
    """One entry under an ``expect``. ``variant`` is set where it stands under one variant's own."""

    section: str
    variant: str | None
    name: str
    metric: Metric
    percentile: float | None
    threshold: Threshold
    severity: str
    slices: Slices | None
    samples: int | None
    baseline: Literal["required", "optional"] | None
    path: Path_


def expectations(data: dict[str, Any], vocabulary: Vocabulary) -> tuple[list[Expectation], list[Mistake]]:
    """Return every entry that can be understood, and what is wrong with the others.

    It works on plain data, so that a spec whose structure is wrong elsewhere still gets these found.
    """
    found: list[Expectation] = []
    mistakes: list[Mistake] = []
    for section, variant, path, entries in written(data):
        if not entries:
            mistakes.append(
                Mistake(path, "`expect` is empty: it would pass without a check", "add one, or leave it out")
            )
        for name, entry in entries.items():
            at = (*path, name)
            metric = vocabulary.find(name)
            if metric is None or section not in metric[0].stages:
                mistakes.append(_unknown(section, name, at, vocabulary))
                continue
            form = entry if isinstance(entry, dict) else {"threshold": entry}
            text = form.get("threshold")
            if not isinstance(text, str | int | float) or isinstance(text, bool):
                continue  # the structure is wrong, which is reported as such
            where = (*at, "threshold") if isinstance(entry, dict) else at
            try:
                threshold = _with_confidence(_parse(str(text), metric[0]), form)
            except ThresholdError as error:
                mistakes.append(Mistake(where, error.what, error.hint, column=error.column))
                continue
            found.append(
                Expectation(
                    section, variant, name, *metric, threshold, form.get("severity", "error"),
                    _slices(form), form.get("samples"), form.get("baseline"), at,
                )
            )  # fmt: skip
    return found, mistakes


def _slices(form: dict[str, Any]) -> Slices | None:
    given = form.get("slices")
    try:
        return None if given is None else Slices.model_validate(given)
    except ValidationError:
        return None  # the structure is wrong, which is reported as such


@functools.lru_cache(maxsize=64)
def understood(standard: Document, vocabulary: Vocabulary) -> tuple[list[Expectation], list[Mistake]]:
    """Return the ``expectations`` of a standard; worked out once for all specs that extend it."""
    return expectations(standard.data, vocabulary)


def written(data: dict[str, Any]) -> Iterator[tuple[str, str | None, Path_, dict[str, Any]]]:
    """Yield every ``expect`` of a spec: its section, its variant if it is one's own, its path and its entries."""
    for section in SECTIONS:
        part = data.get(section)
        if not isinstance(part, dict):
            continue
        if isinstance(part.get("expect"), dict):
            yield section, None, (section, "expect"), part["expect"]
        variants = part.get("variants")
        for name, variant in variants.items() if section == "compress" and isinstance(variants, dict) else ():
            if isinstance(variant, dict) and isinstance(variant.get("expect"), dict):
                yield section, name, (section, "variants", name, "expect"), variant["expect"]


def _unknown(section: str, name: str, path: Path_, vocabulary: Vocabulary) -> Mistake:
    elsewhere = vocabulary.find(name)
    if elsewhere:
        stages = " or ".join(sorted(elsewhere[0].stages))
        return Mistake(path, f"{name} is not measured in {section}", f"it stands under {stages}.expect", key=True)
    known = [word for word in vocabulary.metric_names() if section in _stages(word, vocabulary)]
    return Mistake(path, f"unknown metric {name!r} in {section}", did_you_mean(name, known), key=True)


def _stages(word: str, vocabulary: Vocabulary) -> frozenset[str]:
    found = vocabulary.find(word)
    return found[0].stages if found else frozenset()


@functools.lru_cache(maxsize=1024)
def _parse(text: str, metric: Metric) -> Threshold:
    """Parse a threshold, check that it asks for the better side, and what it is relative to.

    ``x NAME`` may name a variant.
    """
    threshold = parse_threshold(text, metric)
    better = ">" if metric.direction == "higher" else "<"
    if threshold.comparator[0] not in (better, "="):
        meant = text.replace(threshold.comparator[0], better, 1).strip()
        raise ThresholdError(
            f"{metric.name} is the better the {metric.direction} it is: {threshold.comparator} would pass what is bad",
            text.find(threshold.comparator),
            f"did you mean {meant!r}?",
        )
    relation = threshold.relation
    known = metric.relations | COMPARISONS
    if relation and relation.kind != "x" and str(relation) not in known:
        column = text.find(relation.kind)
        raise ThresholdError(
            f"{metric.name} can't be held to {str(relation)!r}", column, did_you_mean(str(relation), known)
        )
    if metric.dimension is Dimension.MULTIPLE and relation is None:
        raise ThresholdError(
            f"{metric.name} is a multiple of another variant's", len(text), f"did you mean '{text} trained'?"
        )
    missing = [needed for needed in metric.relations if relation is None and needed.startswith("over ")]
    if missing:
        raise ThresholdError(
            f"{metric.name} is a gain {missing[0]}: write so",
            len(text),
            f"did you mean '{text} {missing[0]}'?",
        )
    return threshold


def _with_confidence(threshold: Threshold, form: dict[str, Any]) -> Threshold:
    """Put the long form's ``confidence`` into the threshold; two of them are one too many."""
    given = form.get("confidence")
    if given is None:
        return threshold
    if threshold.confidence is not None or threshold.point:
        raise ThresholdError("the confidence is given twice, as `@` and as `confidence`", threshold.text.find("@"))
    try:
        return replace(threshold, confidence=parse_quantity(str(given), Dimension.PROPORTION))
    except ThresholdError:
        return threshold  # the structure is wrong, which is reported as such
