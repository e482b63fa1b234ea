"""A spec as a graph: the steps that make artifacts, and the checks that stand on them. Pure.

A *stage* is what a user sees (``data``, ``train``, ``compress[int8]``, ``serve[int8]``); a *step* is one node of
work behind it, which makes one artifact:

==================  =============================================================================
``data``            the splits and the fitted preprocessing
``training``        every seed's run and the deployed weights
``model[V]``        variant V as an exported artifact: what is served and promoted
``outputs[V]``      what that artifact answers on the test split
``memory[V]``       what the model in memory answers on it
``load[V]``         what serving V under load was like; measured anew in every run
``duel[V,W]``       V and W served at once and measured in turn; measured anew in every run
==================  =============================================================================

Where a threshold is ``of baseline``, ``baseline`` stands among the variants: what the registry's alias points at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deploycheck.language import Expectation, Spec, SpecError, SpecErrors, Threshold
from deploycheck.language.spec import ANSWERS, Slices

TRAINED, BASELINE = "trained", "baseline"
COMPLETES = "completes"
"""The check every stage has: that its steps ran to their end."""


@dataclass(frozen=True)
class Step:
    """One node of work. ``needs`` names the steps whose artifacts it is made from."""

    kind: str
    variant: str | None
    needs: tuple[str, ...]

    @property
    def name(self) -> str:
        """The step's name, unique in its plan: ``model[int8]``."""
        return named(self.kind, self.variant)


@dataclass(frozen=True)
class Check:
    """One item: a threshold on a metric of a stage, or that the stage completes (``threshold`` None).

    ``needs`` names the steps it looks at, ``path`` where it stands in the spec. ``metric`` is as the spec writes
    it; for ``latency.p99`` the ``family`` is ``latency`` and the ``percentile`` 0.99. ``against`` is the variant that
    its value is told relative to, ``slices`` how the examples are cut, where the spec says so.
    """

    id: str
    stage: str
    kind: str
    variant: str | None
    metric: str
    needs: tuple[str, ...]
    family: str = ""
    threshold: Threshold | None = None
    percentile: float | None = None
    against: str | None = None
    severity: str = "error"
    slices: Slices | None = None
    baseline: str = "required"
    path: tuple[str | int, ...] = ("name",)

    @property
    def key(self) -> str:
        """How a waiver names it: ``serve.latency.p99``."""
        return f"{self.kind}.{self.metric}"


@dataclass(frozen=True)
class Plan:
    """What a spec asks for: ``steps`` by name, ``checks`` in the order they run, the variants to choose from."""

    spec: Spec
    id: str
    steps: Mapping[str, Step]
    checks: tuple[Check, ...]
    candidates: tuple[str, ...]


STEPS_OF_SUBJECTS: Mapping[str, tuple[str, ...]] = {
    "labels": ("data",),
    "dataset": ("data",),
    "training": ("training",),
    "outputs": ("outputs[{variant}]",),
    "reference_outputs": ("outputs[{against}]",),
    "artifact": ("model[{variant}]",),
    "reference_artifact": ("model[{against}]",),
    "load": ("load[{variant}]",),
}
"""What a metric looks at, to the steps that make it."""

EXAMPLES = frozenset({"labels", "outputs", "reference_outputs"})
"""What a metric looks at that is measured on test examples, any of which it could be given."""
COMPARABLE = EXAMPLES | {"artifact", "reference_artifact", "load"}
"""What there is of another variant too, or of the baseline."""


def plans_of(
    specs: Iterable[Spec], file_id: str, subjects: Mapping[str, frozenset[str]], methods: frozenset[str]
) -> list[Plan]:
    """Return the plans of a file's specs; raise ``SpecErrors`` for what can't be run in them."""
    specs = tuple(specs)
    errors = [error for spec in specs for error in unbuilt(spec, subjects, methods)]
    if errors:
        raise SpecErrors(errors)
    return [make_plan(spec, f"{file_id}::[{spec.label}]" if spec.label else file_id, subjects) for spec in specs]


def make_plan(spec: Spec, id: str, subjects: Mapping[str, frozenset[str]]) -> Plan:
    """Return the plan of a valid spec that has a model.

    ``id`` is the spec's own, to which its checks' are relative; ``subjects`` maps a metric's name to what it
    looks at.
    """
    subjects = {**subjects, **dict.fromkeys(spec.metrics, ANSWERS)}
    variants = (TRAINED, *(spec.compress.variants if spec.compress else ()))
    served = spec.serve.variants if spec.serve else ()
    checks = tuple(_checks(spec, id, variants, served, subjects))
    wanted = dict.fromkeys(name for check in checks for name in check.needs)
    steps = [*_steps(spec, variants, served), *_compared(wanted)]
    return Plan(spec, id, {step.name: step for step in steps}, checks, served or variants)


def _compared(wanted: Iterable[str]) -> Iterator[Step]:
    """Yield the steps that only a comparison asks for."""
    if any(BASELINE in name for name in wanted):
        yield Step("model", BASELINE, ())
        yield Step("outputs", BASELINE, ("data", f"model[{BASELINE}]"))
    for name in wanted:
        kind, _, pair = name.removesuffix("]").partition("[")
        if kind == "duel":
            one, other = pair.split(",")
            yield Step("duel", pair, ("data", *dict.fromkeys((f"model[{one}]", f"model[{other}]"))))


def _steps(spec: Spec, variants: tuple[str, ...], served: tuple[str, ...]) -> Iterator[Step]:
    yield Step("data", None, ())
    yield Step("training", None, ("data",))
    for variant in variants:
        source = "training" if variant == TRAINED else f"model[{_source(spec, variant)}]"
        yield Step("model", variant, (source,))
        yield Step("outputs", variant, ("data", f"model[{variant}]"))
    for variant in served:
        yield Step("memory", variant, ("data", f"model[{variant}]"))
        yield Step("load", variant, ("data", f"model[{variant}]", f"memory[{variant}]"))


def _source(spec: Spec, variant: str) -> str:
    """Return the variant that ``variant`` is made from."""
    section = spec.compress.variants[variant] if spec.compress else None
    return (section.source if section else None) or TRAINED


def method_chain(spec: Spec, variant: str) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """Return the methods that make ``variant`` from the trained model, first to last, with their arguments."""
    if variant == TRAINED or spec.compress is None:
        return ()
    ((name, arguments),) = spec.compress.variants[variant].methods.items()
    return (*method_chain(spec, _source(spec, variant)), (name, arguments))


def _checks(
    spec: Spec,
    id: str,
    variants: tuple[str, ...],
    served: tuple[str, ...],
    subjects: Mapping[str, frozenset[str]],
) -> Iterator[Check]:
    """Yield the checks stage by stage, each stage's ``completes`` first."""
    stages = [
        ("data", None, ("data",)),
        ("train", None, ("training", f"model[{TRAINED}]", f"outputs[{TRAINED}]")),
        *(("compress", variant, (f"model[{variant}]", f"outputs[{variant}]")) for variant in variants[1:]),
        *(("serve", variant, (f"load[{variant}]",)) for variant in served),
    ]
    for kind, variant, steps in stages:
        stage = named(kind, variant)
        about = variant or (TRAINED if kind == "train" else None)
        yield Check(f"{id}::{stage}::{COMPLETES}", stage, kind, about, COMPLETES, steps)
        for item in _expected(spec, kind, variant):
            against = _against(item)
            needs = _needed(subjects.get(item.metric.name, frozenset()), about, against)
            yield Check(
                f"{id}::{stage}::{item.name}", stage, kind, about, item.name, needs, item.metric.name,
                item.threshold, item.percentile, against, item.severity, item.slices,
                item.baseline or (spec.promote.baseline if spec.promote else "required"), item.path,
            )  # fmt: skip


def _against(item: Expectation) -> str | None:
    """Return the variant that a threshold is relative to."""
    relation = item.threshold.relation
    if relation is None or str(relation) in item.metric.relations:
        return None
    return TRAINED if str(relation) == "of reference" else relation.name


def _needed(subjects: frozenset[str], variant: str | None, against: str | None) -> tuple[str, ...]:
    """Return the steps that make what a metric looks at; of both sides, where it compares two."""
    if against and "load" in subjects:
        return (f"duel[{variant},{against}]",)
    sides = [variant] if against is None or is_difference(subjects) else [variant, against]
    steps = {
        step.format(variant=side, against=against or TRAINED)
        for side in sides
        for subject in subjects
        for step in STEPS_OF_SUBJECTS[subject]
    }
    return tuple(sorted(steps))


def is_difference(subjects: frozenset[str]) -> bool:
    """Whether a metric compares with another model by itself, whichever it is given."""
    return any(subject.startswith("reference_") for subject in subjects)


def _expected(spec: Spec, kind: str, variant: str | None) -> list[Expectation]:
    """Return what a stage expects: its section's entries, a variant's own in place of those of the same name."""
    section = {item.name: item for item in spec.expectations if item.section == kind and item.variant is None}
    own = {
        item.name: item
        for item in spec.expectations
        if item.section == kind and item.variant and item.variant == variant
    }
    return list({**section, **own}.values())


def unbuilt(spec: Spec, subjects: Mapping[str, frozenset[str]], methods: frozenset[str]) -> list[SpecError]:
    """Return an error for each part of a valid spec that this version can't run, where it stands.

    ``subjects`` maps the metrics that are installed to what they look at; ``methods`` are the compression methods.
    """
    subjects = {**subjects, **dict.fromkeys(spec.metrics, ANSWERS)}
    found: list[tuple[tuple[str | int, ...], str]] = []
    if spec.optimize:
        found.append((("optimize",), "`optimize` searches"))
    for name, variant in (spec.compress.variants if spec.compress else {}).items():
        for method, arguments in variant.methods.items():
            if method not in methods and ":" not in method:
                found.append((("compress", "variants", name, method), f"the method `{method}`"))
            elif method == "quantize" and arguments["weights"] != "int8":
                found.append(
                    (
                        ("compress", "variants", name, method, "weights"),
                        f"quantising to {arguments['weights']}",
                    )
                )
    if spec.serve:
        if spec.serve.properties:
            found.append((("serve", "properties"), "`properties`"))
        if spec.serve.runtime != "xla":
            found.append((("serve", "runtime"), f"the runtime {spec.serve.runtime}"))
    found += [(item.path, what) for item in spec.expectations if (what := _unbuilt_check(item, subjects))]
    hint = "leave it out, or run it with a version that has it"
    return [
        SpecError(f"{what} can't be run by this version", spec.place(*path, key=True), hint) for path, what in found
    ]


def _unbuilt_check(item: Expectation, subjects: Mapping[str, frozenset[str]]) -> str | None:
    if item.metric.name not in subjects:
        return f"the metric {item.name}"
    if item.slices and not subjects[item.metric.name] <= EXAMPLES:
        return f"`slices` of {item.name}, which isn't measured on test examples,"
    if _against(item) and not subjects[item.metric.name] <= COMPARABLE:
        return f"a threshold {item.threshold.relation} on {item.name}"
    return "a check's `samples`" if item.samples is not None else None


def named(kind: str, variant: str | None) -> str:
    """Return ``kind`` or ``kind[variant]``."""
    return f"{kind}[{variant}]" if variant else kind
