"""The end of a run: the promotion rule is applied, the evidence made, and the model promoted if that was asked for."""

from __future__ import annotations

import getpass
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    FileRecord,
    PromotionRecord,
    SpecRecord,
    StepRecord,
    TargetRecord,
)
from deploycheck.evidence.forms.json import as_json
from deploycheck.evidence.record import withheld
from deploycheck.extensions import Extensions
from deploycheck.language.source import Document
from deploycheck.language.threshold import RELATIVE
from deploycheck.plan import Plan, several_candidates, shared_aliases
from deploycheck.promotion import Candidate, Decision, Reason, Result, rule
from deploycheck.registry import Registry, RegistryError
from deploycheck.runner.cache import shown_path, without_paths
from deploycheck.runner.code import versions
from deploycheck.runner.platform import find_platform
from deploycheck.runner.review import check_recorded, check_unused, digest_of, find_refusals
from deploycheck.steps import STEP_KINDS
from deploycheck.steps.baseline import DEFAULT_LOCATION, open_registry
from deploycheck.steps.kind import BASELINE, TRAINED, is_repeated
from deploycheck.steps.outputs import exported
from deploycheck.store import Artifact, Store
from deploycheck.verdict import Outcome

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
WORST_FIRST = (Outcome.FAIL, Outcome.ERROR, Outcome.UNDECIDED, Outcome.WAIVED, Outcome.WARN, Outcome.PASS)


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
    specs = tuple(_decide(plan, results, shared.get(plan.id, ()), cache) for plan in plans)
    device = find_platform(cache)["device"] if any(results.steps.values()) else "none used"
    return Evidence(run=run, created=_now(), environment=_environment(device), specs=specs)


def _environment(device: str) -> Environment:
    return Environment(
        python=sys.version.split()[0],
        platform=f"{platform.system()} {platform.machine()}",
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


def _decide(plan: Plan, results: Results, sharing: Sequence[str], cache: Path) -> SpecRecord:
    expected = [check.id for check in plan.checks]
    attempts = {id: sorted(results.checks[id], key=_rank) for id in expected if id in results.checks}
    steps = {
        name: step.model_copy(update={"path": shown_path(Path(step.path), cache)})
        for name, step in results.steps.get(plan.id, {}).items()
    }
    promote = plan.spec.promote
    ruling = rule(
        expected,
        {
            id: [Result(id, check.verdict, check.variant, check.artifact) for check in checks]
            for id, checks in attempts.items()
        },
        list(_candidates(plan, attempts, steps, cache)),
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
            key=steps[str(exported(ruling.chosen.variant))].key,
            path=steps[str(exported(ruling.chosen.variant))].path,
        )
    return SpecRecord(
        id=plan.id,
        name=plan.spec.name,
        digest=plan.spec.digest,
        files=tuple(map(_file_record, plan.spec.cell.chain)),
        decision=ruling.decision,
        reasons=tuple(map(str, ruling.reasons)),
        other_reasons=tuple(reason.what for reason in ruling.reasons if reason.check is None),
        not_run=tuple(id for id in expected if id not in attempts),
        from_store=tuple(_from_store(plan, steps)),
        target=target,
        chosen=chosen,
        checks=tuple(_worst(checks, cache) for checks in attempts.values()),
        steps=tuple(steps[str(ref)] for ref in plan.steps if str(ref) in steps),
    )


def _rank(attempt: CheckRecord) -> tuple[int, bool]:
    """Return a sort key for attempts at one check: the worst is the least."""
    return WORST_FIRST.index(attempt.verdict), not attempt.reached


def _file_record(document: Document) -> FileRecord:
    """Name a file of a spec; of one outside of the project, its folder isn't said."""
    name = Path(document.file).name if Path(document.file).is_absolute() else document.file
    return FileRecord(name=name, sha256=document.sha256)


def _from_store(plan: Plan, steps: Mapping[str, StepRecord]) -> Iterable[str]:
    """Yield the steps that verdicts are based on, and that were not made by this run."""
    for ref in plan.steps:
        step = steps.get(str(ref))
        kind = STEP_KINDS[ref.kind]
        if step and step.reused and not kind.product and not is_repeated(kind):
            yield step.step


def _worst(attempts: Sequence[CheckRecord], cache: Path) -> CheckRecord:
    """Return the attempt that counts, the first of these, with how many there were."""
    worst = attempts[0].model_copy(update={"attempts": len(attempts)})
    if worst.property is None or not worst.property.inputs:
        return worst
    shown = {"inputs": shown_path(Path(worst.property.inputs), cache)}
    return worst.model_copy(update={"property": worst.property.model_copy(update=shown)})


def _candidates(
    plan: Plan, attempts: Mapping[str, Sequence[CheckRecord]], steps: Mapping[str, StepRecord], cache: Path
) -> Iterable[Candidate]:
    """Yield each variant that could be promoted, with what the policies compare.

    An accuracy of slices, or relative to another model's, is not the accuracy of the variant.
    """
    values = {(checks[0].variant, checks[0].metric): checks[0].value for checks in attempts.values()}
    whole = {(check.variant, check.metric) for check in plan.checks if _is_whole(check)}
    for variant in plan.candidates:
        ref = exported(variant)
        step = steps.get(str(ref))
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
            artifact = Store(cache / "store").find(ref.kind, step.key)
        except DeploycheckError:
            artifact = None
        if artifact is None:
            continue  # damaged or removed since it was checked: not a candidate
        yield Candidate(
            variant=variant,
            artifact=step.digest,
            size=bytes_of(artifact),
            accuracy=accuracy,
            latency=latencies[0] if latencies else None,
        )


def _is_whole(check: Check) -> bool:
    """Whether a check's value is of all examples, in its metric's own unit, and not relative to another model's."""
    is_relative = check.compared or check.against == BASELINE
    is_share = check.threshold is not None and check.threshold.unit == RELATIVE
    return not is_relative and not is_share and check.slices is None


def record(evidence: Evidence, cache: Path, extensions: Extensions) -> tuple[str, ...]:
    """Record evidence that can be promoted later in the registries of its specs; return why that was not possible.

    A spec whose verdicts are based on what the run found in the store can't be promoted later: it needs no record.
    """
    targets = {
        spec.target.registry: (spec, spec.target)
        for spec in evidence.specs
        if spec.decision is Decision.PROMOTABLE and spec.target and not spec.from_store
    }
    problems, digest = [], digest_of(evidence)
    for spec, target in targets.values():
        try:
            _open_registry(target, cache, extensions).record_evidence(digest, _now())
        except (DeploycheckError, OSError) as error:
            problems.append(f"{spec.id}: `deploycheck promote` will refuse this evidence: {error}")
    return tuple(problems)


def promote(evidence: Evidence, cache: Path, extensions: Extensions) -> tuple[Evidence, tuple[str, ...]]:
    """Promote what the run that made this evidence decided; return the evidence with that in it, and what was refused.

    Where a registry refuses, or an artifact is no longer what was checked, the spec is withheld for that reason.
    """

    document, digest = as_json(evidence).encode(), digest_of(evidence)

    def move(spec: SpecRecord, chosen: CandidateRecord, target: TargetRecord) -> PromotionRecord:
        _apply_rule_again(spec, evidence)
        registry = _open_registry(target, cache, extensions)
        registry.record_evidence(digest, _now())
        return _move(chosen, target, registry, document, cache=cache, root=extensions.root)

    return _promote_each(evidence, Decision.PROMOTABLE, move, cache=cache, root=extensions.root)


def promote_recorded(evidence: Evidence, cache: Path, extensions: Extensions) -> tuple[Evidence, tuple[str, ...]]:
    """Promote, after its run, what evidence shows to be promotable; returns what ``promote`` does.

    Only evidence that its run recorded is used, once. What it says was promoted must still be promoted.
    """
    document, digest = as_json(evidence).encode(), digest_of(evidence)

    def move(spec: SpecRecord, chosen: CandidateRecord, target: TargetRecord) -> PromotionRecord:
        registry = _open_registry(target, cache, extensions)
        current = registry.current(target.model, target.alias)
        if spec.promotion and current and current.digest == chosen.artifact:
            return spec.promotion
        if spec.promotion:
            what = f"it was promoted by its run, and {target.alias} has moved since: evidence promotes once"
            raise RegistryError(what, hint="run the gate again")
        _apply_rule_again(spec, evidence)
        if current is None or current.digest != chosen.artifact:
            check_unused(registry, digest, target.model, target.alias)
        check_recorded(registry, digest)
        return _move(chosen, target, registry, document, cache=cache, root=extensions.root)

    folders = {"cache": cache, "root": extensions.root}
    promoted, stale = _promote_each(evidence, Decision.PROMOTED, move, **folders)
    moved, refused = _promote_each(promoted, Decision.PROMOTABLE, move, **folders)
    return moved, (*stale, *refused)


def _promote_each(
    evidence: Evidence,
    decided: Decision,
    move: Callable[[SpecRecord, CandidateRecord, TargetRecord], PromotionRecord],
    *,
    cache: Path,
    root: Path,
) -> tuple[Evidence, tuple[str, ...]]:
    specs, problems = [], []
    for spec in evidence.specs:
        if spec.decision is decided and spec.chosen and spec.target:
            try:
                moved = move(spec, spec.chosen, spec.target)
                specs.append(spec.model_copy(update={"decision": Decision.PROMOTED, "promotion": moved}))
            except (DeploycheckError, OSError) as error:
                problems.append(f"{spec.id}: {error}")
                specs.append(withheld(spec, without_paths(str(error), cache, root)))
        else:
            specs.append(spec)
    return evidence.model_copy(update={"specs": tuple(specs)}), tuple(problems)


def _apply_rule_again(spec: SpecRecord, evidence: Evidence) -> None:
    refusals = find_refusals(spec, evidence.created, datetime.now(UTC))
    if refusals:
        raise DeploycheckError("; ".join(refusals), hint="run the gate again, with --deploycheck-fresh")


def _move(
    chosen: CandidateRecord,
    target: TargetRecord,
    registry: Registry,
    document: bytes,
    *,
    cache: Path,
    root: Path,
) -> PromotionRecord:
    artifact = _open_chosen(chosen, cache)
    version = registry.propose(target.model, artifact, document, _now())
    registry.promote(target.model, target.alias, version.digest, expected=target.replaces, actor=actor(), time=_now())
    return PromotionRecord(
        registry=target.registry or shown_path(cache / DEFAULT_LOCATION, cache, root),
        model=target.model,
        alias=target.alias,
        variant=chosen.variant,
        artifact=version.digest,
        previous=target.replaces,
        path=shown_path(version.path, cache, root),
    )


def _open_registry(target: TargetRecord, cache: Path, extensions: Extensions) -> Registry:
    with located("promote.registry"):
        return open_registry(target.registry, extensions, cache)


def _open_chosen(chosen: CandidateRecord, cache: Path) -> Artifact:
    """Return the exported artifact that was chosen, from the project's own store."""
    kind, store = exported(chosen.variant).kind, Store(cache / "store")
    artifact = store.find(kind, chosen.key)
    if artifact is None:
        what = f"the artifact of {chosen.variant} is gone"
        raise DeploycheckError(what, where=str(store.root / kind / chosen.key), hint="run the gate again")
    if artifact.digest != chosen.artifact:
        what = f"the artifact is {artifact.digest}, the checks were run on {chosen.artifact}"
        raise DeploycheckError(what, where=str(artifact.path), hint="run the gate again")
    return artifact


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def actor() -> str:
    """Return who runs this, for the history."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
