"""A spec as a graph: the steps that make artifacts, and the checks that read them. Pure.

A *stage* is what a user sees (``data``, ``train``, ``compress[int8]``, ``serve[int8]``). A *step* is one node of the
work for it, which makes one artifact. The kinds in ``deploycheck.steps`` say which steps there are and what each
needs; this module knows only their interface.
"""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from deploycheck.check import COMPLETES, Check
from deploycheck.errors import DeploycheckError
from deploycheck.extensions import Extensions
from deploycheck.language import Expectation, Spec, SpecError, SpecErrors
from deploycheck.language.spec import ANSWERS, Promote
from deploycheck.ref import Ref
from deploycheck.steps import STEP_KINDS
from deploycheck.steps.kind import TRAINED, StepKind, Subject, made_variants
from deploycheck.verdict import named

REFERENCE = "reference_"
"""A metric's parameter with this prefix is read from the model that the variant is compared with."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a spec asks for.

    ``steps`` maps each step to the steps it is made from, by role; ``checks`` are in the order they run;
    ``candidates`` are the variants that may be promoted.
    """

    spec: Spec
    id: str
    steps: Mapping[Ref, Mapping[str, Ref]]
    checks: tuple[Check, ...]
    candidates: tuple[str, ...]


def make_plans(specs: Iterable[Spec], file_id: str, extensions: Extensions) -> list[Plan]:
    """Return the plans of a file's specs; raise ``SpecErrors`` for checks that their metrics can't give."""
    specs = tuple(specs)
    errors = [error for spec in specs for error in find_impossible(spec, extensions)]
    if errors:
        raise SpecErrors(errors)
    return [make_plan(spec, f"{file_id}::[{spec.label}]" if spec.label else file_id, extensions) for spec in specs]


def only_plan(plans: Sequence[Plan], file: Path) -> Plan:
    """Return the plan of a file that has one spec; raise ``DeploycheckError`` where it has several."""
    if len(plans) != 1:
        raise DeploycheckError(f"it has {len(plans)} specs, expected one", where=str(file))
    return plans[0]


def make_plan(spec: Spec, id: str, extensions: Extensions) -> Plan:
    """Return the plan of a valid spec that has a model; the ids of its checks begin with ``id``."""
    checks = tuple(_checks(spec, id, extensions))
    steps = with_needs(spec, (ref for check in checks for ref in check.needs), extensions)
    candidates = spec.serve.variants if spec.serve else made_variants(spec)
    return Plan(spec=spec, id=id, steps=steps, checks=checks, candidates=candidates)


def with_needs(spec: Spec, refs: Iterable[Ref], extensions: Extensions) -> dict[Ref, Mapping[str, Ref]]:
    """Return steps with all that they need, directly or not; what a step needs comes before it."""
    steps: dict[Ref, Mapping[str, Ref]] = {}

    def add(ref: Ref) -> None:
        if ref not in steps:
            needs = STEP_KINDS[ref.kind].needs(spec, ref, extensions)
            for need in needs.values():
                add(need)
            steps[ref] = needs

    for ref in refs:
        add(ref)
    return steps


def _checks(spec: Spec, id: str, extensions: Extensions) -> Iterator[Check]:
    """Yield the checks stage by stage, each stage's ``completes`` first."""
    for (section, variant), refs in _stages(spec).items():
        stage = f"{section}[{variant}]" if variant else section
        about = variant or (TRAINED if section == "train" else None)
        yield Check(
            id=f"{id}::{stage}::{COMPLETES}",
            stage=stage,
            section=section,
            variant=about,
            metric=COMPLETES,
            completes=refs,
        )
        for item in _expected(spec, section, variant):
            against = _against(item)
            reads, compared = _reads(_subjects(item, spec, extensions), about, against)
            yield Check(
                id=f"{id}::{stage}::{item.name}",
                stage=stage,
                section=section,
                variant=about,
                metric=item.name,
                family=item.metric.name,
                percentile=item.percentile,
                threshold=item.threshold,
                against=against,
                reads=reads,
                compared=compared,
                severity=item.severity,
                slices=item.slices,
                baseline=item.baseline or (spec.promote.baseline if spec.promote else "required"),
                path=item.path,
                property_name=item.property_name,
            )


def _stages(spec: Spec) -> dict[tuple[str, str | None], tuple[Ref, ...]]:
    """Return the steps that each stage completes with. The stages are in the order of the kinds of steps."""
    found: dict[tuple[str, str | None], tuple[Ref, ...]] = {}
    for kind in STEP_KINDS.values():
        for section, variant, ref in kind.stages(spec):
            found[section, variant] = (*found.get((section, variant), ()), ref)
    return found


def _expected(spec: Spec, section: str, variant: str | None) -> list[Expectation]:
    """Return what a stage expects: its section's entries; a variant's own replace those of the same name."""
    here = [item for item in spec.expectations if item.section == section]
    shared = {item.name: item for item in here if item.variant is None}
    own = {item.name: item for item in here if item.variant and item.variant == variant}
    return list({**shared, **own}.values())


def _against(item: Expectation) -> str | None:
    """Return the variant that a threshold is relative to."""
    relation = item.threshold.relation
    if relation is None or str(relation) in item.metric.relations:
        return None
    return TRAINED if str(relation) == "of reference" else relation.name


def _subjects(item: Expectation, spec: Spec, extensions: Extensions) -> frozenset[str]:
    """Return the parameters of a metric's function; those of a property are what was found of it in its section."""
    if item.property_name:
        return frozenset({f"{item.section}_properties"})
    return ANSWERS if item.metric.name in spec.metrics else extensions.metrics[item.metric.name].subjects


@functools.cache
def _reads(
    parameters: frozenset[str], variant: str | None, against: str | None
) -> tuple[Mapping[str, Ref], Mapping[str, Ref]]:
    """Return where a metric's parameters are read from, and where for the model that it is relative to.

    A metric that has parameters of another model compares with it itself, so its value is not relative.
    """
    reads: dict[str, Ref] = {}
    compared: dict[str, Ref] = {}
    compares = is_difference(parameters)
    for parameter in sorted(parameters):
        about = (against or TRAINED) if parameter.startswith(REFERENCE) else variant
        pair = _pair(parameter, variant, against) if against and not compares else None
        reads[parameter] = pair or _single(parameter, about)
        if against and not compares:
            compared[parameter] = pair or _single(parameter, against)
    return MappingProxyType(reads), MappingProxyType(compared)


def is_difference(parameters: Iterable[str]) -> bool:
    """Whether a metric itself compares with another model."""
    return any(parameter.startswith(REFERENCE) for parameter in parameters)


def _pair(parameter: str, variant: str | None, against: str | None) -> Ref | None:
    """Return the step that measures two variants together, if there is one for the parameter."""
    kinds = (kind for kind in _offering(parameter) if kind.pairs)
    return next((Ref(kind.name, (str(variant), str(against))) for kind in kinds), None)


def _single(parameter: str, variant: str | None) -> Ref:
    refs = (kind.ref_for(variant) for kind in _offering(parameter) if not kind.pairs)
    return next(ref for ref in refs if ref is not None)


def _has_step(parameter: str, variant: str | None) -> bool:
    return any(kind.ref_for(variant) is not None for kind in _offering(parameter) if not kind.pairs)


def _offering(parameter: str) -> list[StepKind]:
    subject = parameter.removeprefix(REFERENCE)
    return [kind for kind in STEP_KINDS.values() if subject in kind.subjects]


def subject_of(parameter: str) -> Subject:
    """Return what is known of a metric's parameter."""
    return _offering(parameter)[0].subjects[parameter.removeprefix(REFERENCE)]


def find_impossible(spec: Spec, extensions: Extensions) -> list[SpecError]:
    """Return an error, at its place in the spec, for each check that its metric can't give."""
    errors = []
    for item in spec.expectations:
        what = _impossible(item, _subjects(item, spec, extensions), trains=spec.train.trains)
        if what:
            errors.append(SpecError(what, spec.place(*item.path, key=True)))
    return errors


def _impossible(item: Expectation, parameters: frozenset[str], *, trains: bool) -> str:
    subjects = [subject_of(parameter) for parameter in parameters]
    if item.slices and not all(subject.per_example for subject in subjects):
        return f"{item.name} can't be sliced: it isn't measured on test examples"
    section = item.section
    about = item.variant or (TRAINED if section in ("train", "compress", "serve") else None)
    if "training" in parameters and not trains:
        return f"{item.name} is measured of a training, and this spec has none"
    missing = [name for name in parameters if not name.startswith(REFERENCE) and not _has_step(name, about)]
    if missing:
        return f"{item.name} can't be measured in {section}: there is no {missing[0]} of it"
    if _against(item) and not all(subject.per_example or subject.per_variant for subject in subjects):
        return f"{item.name} can't be {item.threshold.relation}: there is one for all variants"
    return ""


def checks_of(plan: Plan, ref: Ref) -> Sequence[Check]:
    """Return the checks with a threshold that read a step."""
    return [check for check in plan.checks if check.threshold is not None and ref in check.needs]


def several_candidates(plan: Plan, sharing: Iterable[str]) -> str:
    """Return why a plan's model can't be promoted in a run whose specs ``sharing`` would all move its alias."""
    promote = plan.spec.promote
    alias = f"{promote.model}@{promote.to}" if promote else ""
    others = named(id for id in sharing if id != plan.id)
    return f"{others} would move {alias} too: an alias takes one candidate in a run"


def shared_aliases(plans: Sequence[Plan]) -> dict[str, tuple[str, ...]]:
    """Return all specs that would move the same alias as a spec, itself too, for those that share theirs."""
    by_alias: dict[tuple[str, str, str], list[str]] = {}
    for plan in plans:
        if plan.spec.promote:
            by_alias.setdefault(_alias(plan.spec.promote), []).append(plan.id)
    groups = [tuple(ids) for ids in by_alias.values() if len(ids) > 1]
    return {id: group for group in groups for id in group}


def _alias(promote: Promote) -> tuple[str, str, str]:
    """Return what tells aliases apart: the registry, whose location may be written in several ways, and the names."""
    scheme, _, location = (promote.registry or "").partition(":")
    return f"{scheme}:{posixpath.normpath(location)}", promote.model, promote.to
