"""What a run comes to: the promotion rule applied, the evidence made, and the registry moved if it was told to."""

from __future__ import annotations

import getpass
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

from deploycheck.checks.size import bytes_of
from deploycheck.errors import DeploycheckError
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
from deploycheck.evidence.faces import as_json
from deploycheck.plan import TRAINED, Plan
from deploycheck.promotion import Candidate, Decision, Result, rule
from deploycheck.runner.code import versions
from deploycheck.runner.extensions import Extensions
from deploycheck.runner.registries import DEFAULT_LOCATION, open_registry
from deploycheck.store import open_artifact

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

    def add(self, spec: str, check: CheckRecord, steps: Iterable[StepRecord]) -> None:
        """Add one attempt at a check, and what is known of the steps it needed."""
        self.checks.setdefault(check.id, []).append(check)
        known = self.steps.setdefault(spec, {})
        for step in steps:
            if step.step not in known or (known[step.step].reused and not step.reused):
                known[step.step] = step


def conclude(plans: Sequence[Plan], results: Results, run: str) -> Evidence:
    """Decide every spec; nothing is moved."""
    specs = tuple(_decide(plan, results) for plan in plans)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return Evidence(run=run, created=created, environment=_environment(results), specs=specs)


def _environment(results: Results) -> Environment:
    models = [
        Path(step.path) for steps in results.steps.values() for name, step in steps.items() if name.startswith("model[")
    ]
    devices = {str(meta["device"]) for path in models if (meta := _meta(path)) and "device" in meta}
    return Environment(
        python=sys.version.split()[0],
        platform=platform.platform(),
        device=", ".join(sorted(devices)) or "none used",
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        versions=versions(*LIBRARIES),
    )


def _meta(path: Path) -> Mapping[str, object]:
    try:
        return open_artifact(path).meta
    except DeploycheckError:
        return {}


def _decide(plan: Plan, results: Results) -> SpecRecord:
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
    )
    chosen, target = None, None
    if promote:
        target = TargetRecord(registry=promote.registry, model=promote.model, alias=promote.to)
    if ruling.chosen:
        chosen = CandidateRecord(
            variant=ruling.chosen.variant, artifact=ruling.chosen.artifact, size=ruling.chosen.size,
            path=steps[f"model[{ruling.chosen.variant}]"].path,
        )  # fmt: skip
    return SpecRecord(
        id=plan.id, name=plan.spec.name, digest=plan.spec.digest, decision=ruling.decision, reasons=ruling.reasons,
        not_run=tuple(id for id in expected if id not in attempts), target=target, chosen=chosen,
        checks=tuple(_worst(checks) for checks in attempts.values()),
        steps=tuple(steps[name] for name in plan.steps if name in steps),
    )  # fmt: skip


def _worst(attempts: Sequence[CheckRecord]) -> CheckRecord:
    """Return the attempt that counts: a blocking one if there is any, else the last."""
    return next((check for check in attempts if check.verdict.blocks), attempts[-1])


def _candidates(
    plan: Plan, attempts: Mapping[str, Sequence[CheckRecord]], steps: Mapping[str, StepRecord]
) -> Iterable[Candidate]:
    """Yield each variant that could be promoted, with what the policies compare."""
    values = {(check.variant, check.metric): check.value for checks in attempts.values() for check in checks}
    for variant in plan.candidates:
        step = steps.get(f"model[{variant}]")
        if step is None:
            continue
        accuracy = values.get((variant, "accuracy"))
        before, drop = values.get((TRAINED, "accuracy")), values.get((variant, "accuracy_drop"))
        if accuracy is None and before is not None and drop is not None:
            accuracy = before - drop
        latencies = [
            value for (name, metric), value in values.items() if name == variant and metric.startswith("latency.")
        ]
        try:
            size = bytes_of(open_artifact(Path(step.path)))
        except DeploycheckError:
            continue  # damaged since it was checked: no candidate
        yield Candidate(variant, step.digest, size, accuracy, latencies[0] if latencies else None)


def promote(evidence: Evidence, root: Path, cache: Path, extensions: Extensions) -> tuple[Evidence, tuple[str, ...]]:
    """Move what is promotable, on this evidence; return the evidence of that, and what could not be moved.

    What it says was promoted is moved again where the alias has been pointed elsewhere since.
    Where a registry refuses, or an artifact is no longer what was checked, the spec is withheld for that reason.
    """
    specs, problems = [], []
    for spec in evidence.specs:
        if spec.decision is not Decision.WITHHELD and spec.chosen and spec.target:
            try:
                moved = _move(spec.chosen, spec.target, evidence, root, cache, extensions)
                specs.append(spec.model_copy(update={"decision": Decision.PROMOTED, "promotion": moved}))
            except (DeploycheckError, OSError) as error:
                problems.append(f"{spec.id}: {error}")
                withheld = {"decision": Decision.WITHHELD, "reasons": (*spec.reasons, str(error))}
                specs.append(spec.model_copy(update=withheld))
        else:
            specs.append(spec)
    return evidence.model_copy(update={"specs": tuple(specs)}), tuple(problems)


def _move(
    chosen: CandidateRecord,
    target: TargetRecord,
    evidence: Evidence,
    root: Path,
    cache: Path,
    extensions: Extensions,
) -> PromotionRecord:
    artifact = open_artifact(Path(chosen.path))
    if artifact.digest != chosen.artifact:
        what = f"the artifact is {artifact.digest}, the checks were run on {chosen.artifact}"
        raise DeploycheckError(what, where=chosen.path, hint="run the gate again")
    until = artifact.meta.get("loadable_until")
    if until and datetime.now(UTC).date() > date.fromisoformat(until):
        what = f"the exported program could be loaded until {until}"
        raise DeploycheckError(what, where=chosen.path, hint="run the gate again: it is exported anew")
    registry = open_registry(target.registry, root, cache, extensions)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    before = registry.current(target.model, target.alias)
    version = registry.propose(target.model, artifact, as_json(evidence).encode(), now)
    expected = before.digest if before else None
    registry.promote(target.model, target.alias, version.digest, expected=expected, actor=actor(), time=now)
    return PromotionRecord(
        registry=target.registry or str(cache / DEFAULT_LOCATION), model=target.model, alias=target.alias,
        variant=chosen.variant, artifact=version.digest, previous=expected, path=str(version.path),
    )  # fmt: skip


def actor() -> str:
    """Return who runs this, for the history."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
