"""The end of a run: the promotion rule is applied, the evidence made, and the model promoted if that was asked for."""

from __future__ import annotations

import getpass
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from deploycheck.check import Check
from deploycheck.checks.size import bytes_of
from deploycheck.errors import DeploycheckError, located
from deploycheck.evidence import (
    CandidateRecord,
    CheckRecord,
    Environment,
    Evidence,
    PromotionRecord,
    SpecRecord,
    StepRecord,
    TargetRecord,
)
from deploycheck.evidence.forms.json import as_json
from deploycheck.extensions import Extensions
from deploycheck.language.threshold import RELATIVE
from deploycheck.plan import Plan, several_candidates, shared_aliases
from deploycheck.promotion import Candidate, Decision, Reason, Result, rule
from deploycheck.runner.code import versions
from deploycheck.runner.platform import find_platform
from deploycheck.steps.baseline import DEFAULT_LOCATION, open_registry
from deploycheck.steps.kind import BASELINE, TRAINED
from deploycheck.steps.outputs import exported
from deploycheck.store import loadable_until, open_artifact

LIBRARIES = (
    "deploycheck",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "qwix",
    "orbax-checkpoint",
    "numpy",
    "starlette",
    "uvicorn",
)


@dataclass
class Results:
    """What is known of a run so far: every attempt at every check, and every step, by spec."""

    checks: dict[str, list[CheckRecord]] = field(default_factory=dict)
    steps: dict[str, dict[str, StepRecord]] = field(default_factory=dict)
    aliases: dict[str, set[str | None]] = field(default_factory=dict)
    unknown_aliases: dict[str, str] = field(default_factory=dict)

    def add(self, spec: str, check: CheckRecord, steps: Iterable[StepRecord]) -> None:
        """Add one attempt at a check, and what is known of the steps it needed."""
        self.checks.setdefault(check.id, []).append(check)
        known = self.steps.setdefault(spec, {})
        for step in steps:
            if step.step not in known or (known[step.step].reused and not step.reused):
                known[step.step] = step

    def add_alias(self, spec: str, digest: str | None, problem: str = "") -> None:
        """Add what the alias of a spec's model pointed at when a process looked, or why it could not be read."""
        if problem:
            self.unknown_aliases.setdefault(spec, problem)
        else:
            self.aliases.setdefault(spec, set()).add(digest)


def conclude(plans: Sequence[Plan], results: Results, run: str, cache: Path) -> Evidence:
    """Decide on every spec; nothing is promoted."""
    shared = shared_aliases([plan for plan in plans if plan.id in results.steps])
    specs = tuple(_decide(plan, results, shared.get(plan.id, ())) for plan in plans)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    device = find_platform(cache)["device"] if any(results.steps.values()) else "none used"
    return Evidence(run=run, created=created, environment=_environment(device), specs=specs)


def _environment(device: str) -> Environment:
    return Environment(
        python=sys.version.split()[0],
        platform=platform.platform(),
        device=device,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        versions=versions(*LIBRARIES),
    )


def _reasons_known(plan: Plan, results: Results, sharing: Sequence[str]) -> Iterable[Reason]:
    """Yield what forbids a promotion whatever the checks say."""
    promote = plan.spec.promote
    if promote is None:
        return
    alias = f"{promote.model}@{promote.to}"
    if sharing:
        yield Reason(several_candidates(plan, sharing))
    if plan.id in results.unknown_aliases:
        yield Reason(f"what {alias} points at is not known: {results.unknown_aliases[plan.id]}")
    if len(results.aliases.get(plan.id, ())) > 1:
        yield Reason(f"{alias} was moved while the run went on: run the gate again")


def _decide(plan: Plan, results: Results, sharing: Sequence[str]) -> SpecRecord:
    expected = [check.id for check in plan.checks]
    attempts = {id: results.checks[id] for id in expected if id in results.checks}
    steps = results.steps.get(plan.id, {})
    promote = plan.spec.promote
    ruling = rule(
        expected,
        {
            id: [Result(id, check.verdict, check.variant, check.artifact) for check in checks]
            for id, checks in attempts.items()
        },
        list(_candidates(plan, attempts, steps)),
        promote.choose if promote else plan.candidates[0],
        list(_reasons_known(plan, results, sharing)),
    )
    chosen, target = None, None
    if promote:
        replaces = next(iter(results.aliases.get(plan.id, ())), None)
        target = TargetRecord(registry=promote.registry, model=promote.model, alias=promote.to, replaces=replaces)
    if ruling.chosen:
        chosen = CandidateRecord(
            variant=ruling.chosen.variant,
            artifact=ruling.chosen.artifact,
            size=ruling.chosen.size,
            path=steps[str(exported(ruling.chosen.variant))].path,
        )
    return SpecRecord(
        id=plan.id,
        name=plan.spec.name,
        digest=plan.spec.digest,
        decision=ruling.decision,
        reasons=tuple(map(str, ruling.reasons)),
        other_reasons=tuple(reason.what for reason in ruling.reasons if reason.check is None),
        not_run=tuple(id for id in expected if id not in attempts),
        target=target,
        chosen=chosen,
        checks=tuple(_worst(checks) for checks in attempts.values()),
        steps=tuple(steps[str(ref)] for ref in plan.steps if str(ref) in steps),
    )


def _worst(attempts: Sequence[CheckRecord]) -> CheckRecord:
    """Return the attempt that counts: a blocking one if there is any, else the last."""
    return next((check for check in attempts if check.verdict.blocks), attempts[-1])


def _candidates(
    plan: Plan, attempts: Mapping[str, Sequence[CheckRecord]], steps: Mapping[str, StepRecord]
) -> Iterable[Candidate]:
    """Yield each variant that could be promoted, with what the policies compare.

    An accuracy of slices, or relative to another model's, is not the accuracy of the variant.
    """
    values = {(check.variant, check.metric): check.value for checks in attempts.values() for check in checks}
    whole = {(check.variant, check.metric) for check in plan.checks if _is_whole(check)}
    for variant in plan.candidates:
        step = steps.get(str(exported(variant)))
        if step is None:
            continue
        accuracy, before, drop = (
            values.get(known) if known in whole else None
            for known in ((variant, "accuracy"), (TRAINED, "accuracy"), (variant, "accuracy_drop"))
        )
        if accuracy is None and before is not None and drop is not None:
            accuracy = before - drop
        latencies = [
            value for (name, metric), value in values.items() if name == variant and metric.startswith("latency.")
        ]
        try:
            size = bytes_of(open_artifact(Path(step.path)))
        except DeploycheckError:
            continue  # damaged since it was checked: not a candidate
        yield Candidate(
            variant=variant,
            artifact=step.digest,
            size=size,
            accuracy=accuracy,
            latency=latencies[0] if latencies else None,
        )


def _is_whole(check: Check) -> bool:
    """Whether a check's value is of all examples, in its metric's own unit, and not relative to another model's."""
    is_relative = check.compared or check.against == BASELINE
    is_share = check.threshold is not None and check.threshold.unit == RELATIVE
    return not is_relative and not is_share and check.slices is None


def promote(evidence: Evidence, cache: Path, extensions: Extensions) -> tuple[Evidence, tuple[str, ...]]:
    """Promote what this evidence says is promotable; return the evidence with that in it, and what was refused.

    What it says was promoted is promoted again where the alias points to something else now.
    Where a registry refuses, or an artifact is no longer what was checked, the spec is withheld for that reason.
    """
    specs, problems = [], []
    for spec in evidence.specs:
        if spec.decision is not Decision.WITHHELD and spec.chosen and spec.target:
            try:
                moved = _move(spec.chosen, spec.target, evidence, cache, extensions)
                specs.append(spec.model_copy(update={"decision": Decision.PROMOTED, "promotion": moved}))
            except (DeploycheckError, OSError) as error:
                problems.append(f"{spec.id}: {error}")
                withheld = {
                    "decision": Decision.WITHHELD,
                    "reasons": (*spec.reasons, str(error)),
                    "other_reasons": (*spec.other_reasons, str(error)),
                    "promotion": None,
                }
                specs.append(spec.model_copy(update=withheld))
        else:
            specs.append(spec)
    return evidence.model_copy(update={"specs": tuple(specs)}), tuple(problems)


def _move(
    chosen: CandidateRecord, target: TargetRecord, evidence: Evidence, cache: Path, extensions: Extensions
) -> PromotionRecord:
    artifact = open_artifact(Path(chosen.path))
    if artifact.digest != chosen.artifact:
        what = f"the artifact is {artifact.digest}, the checks were run on {chosen.artifact}"
        raise DeploycheckError(what, where=chosen.path, hint="run the gate again")
    until = loadable_until(artifact)
    if until and datetime.now(UTC).date() > until:
        what = f"the exported program could be loaded until {until}"
        raise DeploycheckError(what, where=chosen.path, hint="run the gate again: it exports the model again")
    with located("promote.registry"):
        registry = open_registry(target.registry, extensions, cache)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    version = registry.propose(target.model, artifact, as_json(evidence).encode(), now)
    expected = target.replaces
    registry.promote(target.model, target.alias, version.digest, expected=expected, actor=actor(), time=now)
    return PromotionRecord(
        registry=target.registry or str(cache / DEFAULT_LOCATION),
        model=target.model,
        alias=target.alias,
        variant=chosen.variant,
        artifact=version.digest,
        previous=expected,
        path=str(version.path),
    )


def actor() -> str:
    """Return who runs this, for the history."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
