"""A spec as a graph: the steps that make artifacts, and the checks that stand on them. Pure.

A *stage* is what a user sees (``data``, ``train``, ``compress[int8]``, ``serve[int8]``); a *step* is one node of
work behind it, which makes one artifact:

==================  =============================================================================
``data``            the splits and the fitted preprocessing
``training``        every seed's run and the deployed weights
``model[V]``        variant V as an exported artifact: what is served and promoted
``outputs[V]``      what that artifact answers on the test split, and what the model in memory does
``load[V]``         what serving V under load was like; measured anew in every run
==================  =============================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deploycheck.language import Expectation, Spec, SpecError, Threshold
from deploycheck.language.threshold import RELATIVE

TRAINED = "trained"
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
    it; for ``latency.p99`` the ``family`` is ``latency`` and the ``percentile`` 0.99.
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
    severity: str = "error"
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
    "trained_outputs": (f"outputs[{TRAINED}]",),
    "artifact": ("model[{variant}]",),
    "trained_artifact": (f"model[{TRAINED}]",),
    "load": ("load[{variant}]",),
}
"""What a metric looks at, to the steps that make it."""


def make_plan(spec: Spec, id: str, subjects: Mapping[str, frozenset[str]]) -> Plan:
    """Return the plan of a valid spec that has a model.

    ``id`` is the spec's own, to which its checks' are relative; ``subjects`` maps a metric's name to what it
    looks at.
    """
    variants = (TRAINED, *(spec.compress.variants if spec.compress else ()))
    served = spec.serve.variants if spec.serve else ()
    checks = tuple(_checks(spec, id, variants, served, subjects))
    return Plan(spec, id, {step.name: step for step in _steps(spec, variants, served)}, checks, served or variants)


def _steps(spec: Spec, variants: tuple[str, ...], served: tuple[str, ...]) -> Iterator[Step]:
    yield Step("data", None, ())
    yield Step("training", None, ("data",))
    for variant in variants:
        source = "training" if variant == TRAINED else f"model[{_source(spec, variant)}]"
        yield Step("model", variant, (source,))
        yield Step("outputs", variant, ("data", f"model[{variant}]"))
    for variant in served:
        yield Step("load", variant, ("data", f"model[{variant}]", f"outputs[{variant}]"))


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
            needs = {
                step.format(variant=about)
                for subject in sorted(subjects.get(item.metric.name, ()))
                for step in STEPS_OF_SUBJECTS[subject]
            }
            yield Check(
                f"{id}::{stage}::{item.name}", stage, kind, about, item.name, tuple(sorted(needs)),
                item.metric.name, item.threshold, item.percentile, item.severity, item.path,
            )  # fmt: skip


def _expected(spec: Spec, kind: str, variant: str | None) -> list[Expectation]:
    """Return what a stage expects: its section's entries, a variant's own in place of those of the same name."""
    section = {item.name: item for item in spec.expectations if item.section == kind and item.variant is None}
    own = {
        item.name: item
        for item in spec.expectations
        if item.section == kind and item.variant and item.variant == variant
    }
    return list({**section, **own}.values())


def unbuilt(spec: Spec, metrics: frozenset[str], methods: frozenset[str]) -> list[SpecError]:
    """Return an error for each part of a valid spec that this version can't run yet, where it stands.

    ``metrics`` and ``methods`` are the names of the metrics and compression methods that are installed.
    """
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
        if spec.serve.load.scenario != "server":
            found.append((("serve", "load", "scenario"), f"the scenario {spec.serve.load.scenario}"))
        if spec.serve.runtime != "xla":
            found.append((("serve", "runtime"), f"the runtime {spec.serve.runtime}"))
    found += [(item.path, what) for item in spec.expectations if (what := _unbuilt_check(item, metrics))]
    hint = "leave it out, or run it with a version that has it"
    return [
        SpecError(f"{what} can't be run by this version", spec.place(*path, key=True), hint) for path, what in found
    ]


def _unbuilt_check(item: Expectation, metrics: frozenset[str]) -> str | None:
    relation = item.threshold.relation
    if item.metric.name not in metrics:
        return f"the metric {item.name}"
    if relation and str(relation) not in item.metric.relations:
        return f"a threshold {relation}"
    if item.threshold.unit == RELATIVE:
        return f"a threshold in {RELATIVE}"
    for name in ("slices", "samples", "baseline"):
        if getattr(item, name) is not None:
            return f"a check's `{name}`"
    return None


def named(kind: str, variant: str | None) -> str:
    """Return ``kind`` or ``kind[variant]``."""
    return f"{kind}[{variant}]" if variant else kind
