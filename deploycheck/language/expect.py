"""``expect``: every entry is a check, whose threshold must fit its metric."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import ValidationError

from deploycheck.language.errors import Mistake, SpecPath, did_you_mean
from deploycheck.language.properties import check_name, complete_settings, find_properties
from deploycheck.language.reach import check_reach
from deploycheck.language.references import mapping
from deploycheck.language.source import Document
from deploycheck.language.spec import Slices
from deploycheck.language.threshold import Threshold, ThresholdError, parse_quantity, parse_threshold
from deploycheck.language.variants import TRAINED
from deploycheck.language.vocabulary import COMPARISONS, Dimension, Metric, Vocabulary

HOLDS = Threshold("==", 0, "", Dimension.COUNT, point=True, text="no counterexample")
"""The threshold of every property, on the number of its counterexamples."""

SECTIONS = ("data", "train", "compress", "serve")
"""The sections of every spec that may have an ``expect``; those that extensions add may have one too."""


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """One entry under an ``expect``; ``variant`` is set for one under a variant's own.

    For a family such as ``latency``, ``percentile`` (0..1) says which of its metrics is meant. One entry under
    ``properties`` is an expectation too: ``property_name`` is the property's name, ``settings`` are its settings.
    """

    section: str
    variant: str | None
    name: str
    metric: Metric
    percentile: float | None
    threshold: Threshold
    severity: str
    slices: Slices | None
    baseline: Literal["required", "optional"] | None
    path: SpecPath
    property_name: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


def read_expectations(data: dict[str, Any], vocabulary: Vocabulary) -> tuple[list[Expectation], list[Mistake]]:
    """Return every entry that is valid, and the mistakes in the others.

    It works on plain data, so that these mistakes are found in a spec whose structure is wrong elsewhere.
    """
    found: list[Expectation] = []
    mistakes: list[Mistake] = []
    for section, variant, path, entries in find_expects(data, vocabulary):
        if not entries:
            what = "`expect` is empty: it would pass without a check"
            mistakes.append(Mistake(path, what, "add a check, or leave `expect` out"))
        for name, entry in entries.items():
            read = _read_entry(section, variant, (*path, name), entry, vocabulary)
            if isinstance(read, Expectation):
                found.append(read)
            elif read is not None:
                mistakes.append(read)
    return [*found, *_read_properties(data, vocabulary)], mistakes


def read_within(data: dict[str, Any], vocabulary: Vocabulary) -> tuple[list[Expectation], list[Mistake]]:
    """Return what each variant's ``search`` must meet, and the mistakes in it.

    These thresholds choose a recipe, on the validation split. They are no checks of the spec.
    """
    found: list[Expectation] = []
    mistakes: list[Mistake] = []
    for variant in mapping(data, "compress", "variants"):
        path: SpecPath = ("compress", "variants", variant, "search", "within")
        for name, text in mapping(data, *map(str, path)).items():
            read = None if isinstance(text, dict) else _read_entry("compress", variant, (*path, name), text, vocabulary)
            if isinstance(read, Expectation):
                found.append(read)
                relation = read.threshold.relation
                if relation and str(relation) not in ("of reference", f"x {TRAINED}", *read.metric.relations):
                    what = f"a search compares recipes with the trained model only, not {str(relation)!r}"
                    mistakes.append(Mistake((*path, name), what, "write `of reference`"))
            elif read is not None:
                mistakes.append(read)
    return found, mistakes


def _read_properties(data: dict[str, Any], vocabulary: Vocabulary) -> Iterator[Expectation]:
    """Yield the entries under ``properties``; what is wrong with them is reported elsewhere."""
    for section, path, name, settings in find_properties(data):
        shown = check_name(name, settings)
        yield Expectation(
            section=section,
            variant=None,
            name=shown,
            metric=Metric(shown, Dimension.COUNT, "lower", frozenset({section})),
            percentile=None,
            threshold=HOLDS,
            severity="error",
            slices=None,
            baseline=None,
            path=path,
            property_name=name,
            settings=complete_settings(vocabulary.properties.get(name), settings, vocabulary),
        )


def _read_entry(
    section: str, variant: str | None, path: SpecPath, entry: Any, vocabulary: Vocabulary
) -> Expectation | Mistake | None:
    """Return one entry, or the mistake in it; None where its structure is wrong, which is reported elsewhere."""
    name = str(path[-1])
    metric, percentile = vocabulary.find(name) or (None, None)
    if metric is None or section not in metric.stages:
        return _unknown(section, name, path, vocabulary)
    form = entry if isinstance(entry, dict) else {"threshold": entry}
    text = form.get("threshold")
    if not isinstance(text, str | int | float) or isinstance(text, bool):
        return None
    try:
        threshold = _with_confidence(read_threshold(str(text), metric), form)
    except ThresholdError as error:
        at = (*path, "threshold") if isinstance(entry, dict) else path
        return Mistake(at, error.what, error.hint, column=error.column)
    return Expectation(
        section=section,
        variant=variant,
        name=name,
        metric=metric,
        percentile=percentile,
        threshold=threshold,
        severity=form.get("severity", "error"),
        slices=_slices(form),
        baseline=form.get("baseline"),
        path=path,
    )


def _slices(form: dict[str, Any]) -> Slices | None:
    given = form.get("slices")
    try:
        return None if given is None else Slices.model_validate(given)
    except ValidationError:
        return None  # the structure is wrong, which is reported elsewhere


@functools.lru_cache(maxsize=64)
def read_standards_expectations(standard: Document, vocabulary: Vocabulary) -> tuple[list[Expectation], list[Mistake]]:
    """Return ``read_expectations`` of a standard, computed once for all specs that extend it."""
    return read_expectations(standard.data, vocabulary)


def find_expects(
    data: dict[str, Any], vocabulary: Vocabulary
) -> Iterator[tuple[str, str | None, SpecPath, dict[str, Any]]]:
    """Yield every ``expect`` of a spec: its section, the variant it belongs to, if any, its path and its entries."""
    for section in (*SECTIONS, *vocabulary.sections):
        part = data.get(section)
        if not isinstance(part, dict):
            continue
        if isinstance(part.get("expect"), dict):
            yield section, None, (section, "expect"), part["expect"]
        variants = part.get("variants")
        for name, variant in variants.items() if section == "compress" and isinstance(variants, dict) else ():
            if isinstance(variant, dict) and isinstance(variant.get("expect"), dict):
                yield section, name, (section, "variants", name, "expect"), variant["expect"]


def _unknown(section: str, name: str, path: SpecPath, vocabulary: Vocabulary) -> Mistake:
    elsewhere = vocabulary.find(name)
    if elsewhere:
        stages = " or ".join(f"{stage}.expect" for stage in sorted(elsewhere[0].stages))
        return Mistake(path, f"{name} is not measured in {section}", f"move it to {stages}", key=True)
    known = [word for word in vocabulary.metric_names() if section in _stages(word, vocabulary)]
    return Mistake(path, f"unknown metric {name!r} in {section}", did_you_mean(name, known), key=True)


def _stages(word: str, vocabulary: Vocabulary) -> frozenset[str]:
    found = vocabulary.find(word)
    return found[0].stages if found else frozenset()


@functools.lru_cache(maxsize=1024)
def read_threshold(text: str, metric: Metric) -> Threshold:
    """Parse a metric's threshold; raise ``ThresholdError`` unless some models meet it, some don't, and it fits.

    Whether the NAME of ``x NAME`` is a variant is not checked here.
    """
    threshold = parse_threshold(text, metric)
    better = ">" if metric.direction == "higher" else "<"
    if threshold.comparator[0] not in (better, "="):
        meant = text.replace(threshold.comparator[0], better, 1).strip()
        raise ThresholdError(
            f"{metric.direction} {metric.name} is better, so {threshold.comparator} would accept bad models",
            text.find(threshold.comparator),
            f"did you mean {meant!r}?",
        )
    relation = threshold.relation
    known = metric.relations | COMPARISONS
    if relation and relation.kind != "x" and str(relation) not in known:
        column = text.find(relation.kind)
        raise ThresholdError(
            f"{metric.name} can't be compared with {str(relation)!r}", column, did_you_mean(str(relation), known)
        )
    if metric.dimension is Dimension.MULTIPLE and relation is None:
        raise ThresholdError(
            f"{metric.name} is a multiple of another variant's value", len(text), f"did you mean '{text} trained'?"
        )
    missing = [needed for needed in metric.relations if relation is None and needed.startswith("over ")]
    if missing:
        raise ThresholdError(
            f"{metric.name} is a gain {missing[0]}, which its threshold must say",
            len(text),
            f"did you mean '{text} {missing[0]}'?",
        )
    check_reach(threshold, metric, text)
    return threshold


def _with_confidence(threshold: Threshold, form: dict[str, Any]) -> Threshold:
    """Return the threshold with the long form's ``confidence``; refuse one that is given both ways."""
    given = form.get("confidence")
    if given is None:
        return threshold
    if threshold.confidence is not None or threshold.point:
        raise ThresholdError("the confidence is given twice, as `@` and as `confidence`", threshold.text.find("@"))
    try:
        return replace(threshold, confidence=parse_quantity(str(given), Dimension.PROPORTION))
    except ThresholdError:
        return threshold  # the structure is wrong, which is reported elsewhere
