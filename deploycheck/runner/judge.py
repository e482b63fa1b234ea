"""Judging a check: its measurement is compared with its threshold, and the result is a record for the evidence."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from pathlib import Path

from deploycheck.check import Check
from deploycheck.evidence import CheckRecord, LoadRecord, MachineRecord, PropertyRecord, StepRecord
from deploycheck.evidence.show import BASE_UNITS, NOTHING, with_interval
from deploycheck.plan import Plan
from deploycheck.ref import Ref
from deploycheck.runner.execute import Runner
from deploycheck.runner.measuring import Subjects, measure
from deploycheck.serving import load_report
from deploycheck.steps import STEP_KINDS
from deploycheck.steps.kind import NoBaseline
from deploycheck.steps.outputs import exported
from deploycheck.verdict import Outcome, decide, settle


def judge(subjects: Subjects, plan: Plan, check: Check, today: date) -> CheckRecord:
    """Measure and decide one check. The steps it needs are done first, if they aren't done yet."""
    runner = subjects.runner
    try:
        done = [runner.step(plan, ref) for ref in check.needs]
    except NoBaseline as error:
        return _without_baseline(plan, check, str(error))
    record = unjudged(plan, check, Outcome.PASS, "")
    record = record.model_copy(update={"artifact": _digest_of_artifact(runner, plan, check)})
    if check.threshold is None:
        shown = "found done" if all(step.reused for step in done) else "done"
        remarks = [remark for step in done for remark in step.artifact.meta.get("remarks", ())]
        return record.model_copy(update={"shown": shown, "reason": "; ".join(remarks)})
    measurement = measure(check, plan, subjects)
    waiver = plan.spec.waive.get(check.key)
    verdict = decide(measurement, check.threshold, plan.spec.confidence)
    verdict = settle(verdict, check.severity, waiver.until if waiver else None, today)
    dimension = check.threshold.dimension
    exact = verdict.confidence is None
    if check.property_name:
        ((parameter, ref),) = check.reads.items()
        found = subjects.read(plan, parameter, ref, check.variant)[check.metric]
        return record.model_copy(
            update={
                "verdict": verdict.outcome,
                "reason": verdict.reason,
                "value": verdict.value,
                "samples": found.examples,
                "shown": _counterexamples(found.examples, bool(found.violation)),
                "property": PropertyRecord(**{name: part for name, part in asdict(found).items() if name != "error"}),
            }
        )
    return record.model_copy(
        update={
            "verdict": verdict.outcome,
            "reason": verdict.reason,
            "value": _finite(verdict.value),
            "unit": BASE_UNITS[dimension],
            "interval": None if exact else (_finite(verdict.low), _finite(verdict.high)),
            "confidence": verdict.confidence,
            "samples": verdict.samples,
            "shown": NOTHING
            if math.isnan(verdict.value) and (measurement.invalid or not verdict.samples)
            else with_interval(verdict.value, verdict.low, verdict.high, dimension),
        }
    )


def _digest_of_artifact(runner: Runner, plan: Plan, check: Check) -> str:
    """Return the digest of the exported artifact that a check is about, if this process has it."""
    if check.variant is None:
        return ""
    done = runner.steps_done(plan).get(exported(check.variant))
    return done.artifact.digest if done else ""


def _without_baseline(plan: Plan, check: Check, why: str) -> CheckRecord:
    """Return the record of a check that has no baseline to compare with: a failure, unless the spec allows that."""
    if check.baseline == "optional":
        return unjudged(plan, check, Outcome.WARN, f"{why}, which the spec allows (baseline: optional)")
    hint = "for the first promotion set `baseline: optional` under `promote`"
    return unjudged(plan, check, Outcome.FAIL, f"{why}, and the spec requires one; {hint}")


def unjudged(plan: Plan, check: Check, outcome: Outcome, reason: str) -> CheckRecord:
    """Return the record of a check for which nothing was measured."""
    waiver = plan.spec.waive.get(check.key)
    return CheckRecord(
        id=check.id,
        stage=check.stage,
        variant=check.variant,
        metric=check.metric,
        verdict=outcome,
        reason=reason,
        threshold=_standard(check),
        severity="warn" if check.severity == "warn" else "error",
        waived_until=waiver.until if waiver else None,
        waiver=f"{waiver.because} (until {waiver.until.isoformat()}, by {waiver.by})" if waiver else None,
    )


def _standard(check: Check) -> str | None:
    """Return what a check requires, as the spec writes it, and of which slices."""
    if check.threshold is None:
        return None
    return f"{check.threshold.text}, in every {check.slices.by}" if check.slices else check.threshold.text


def steps_of(runner: Runner, plan: Plan, check: Check) -> list[StepRecord]:
    """Return the record of each step that a check needs, directly or not, as far as this process has it."""
    done = runner.steps_done(plan)
    needed = _needed_by(plan, check)
    return [
        StepRecord(
            step=str(ref),
            key=item.artifact.key,
            digest=item.artifact.digest,
            path=str(item.artifact.path),
            reused=item.reused,
            seconds=round(item.seconds, 3),
            because=item.because,
            loads=tuple(_loads(item.artifact.path)) if STEP_KINDS[ref.kind].timed else (),
        )
        for ref, item in done.items()
        if ref in needed
    ]


def _needed_by(plan: Plan, check: Check) -> set[Ref]:
    """Return the steps that a check needs, directly or not."""
    found: set[Ref] = set()
    waiting = list(check.needs)
    while waiting:
        ref = waiting.pop()
        if ref not in found:
            found.add(ref)
            waiting.extend(plan.steps[ref].values())
    return found


def _loads(folder: Path) -> Iterator[LoadRecord]:
    for variant, load in load_report.read(folder).items():
        yield LoadRecord(
            variant=variant,
            requests=len(load.latencies_s),
            schedule=load.schedule,
            saturation=load.saturation,
            requests_per_s=load.requests_per_s,
            sent=load.sent,
            failed=load.failed,
            failures=load.failures,
            doubt=load.doubt,
            seconds=load.lasted_s,
            busy_seconds=load.busy_s,
            disturbances=len(load.disturbed),
            disturbed=load_report.summarise(load.disturbed),
            disturbed_requests=sum(load.disturbed_requests),
            histogram=load.histogram,
            machine=MachineRecord(**asdict(load.machine)) if load.machine else None,
        )


def _counterexamples(examples: int, is_violated: bool) -> str:
    inputs = f"{examples:,} example{'' if examples == 1 else 's'}"
    return f"a counterexample, after {inputs}" if is_violated else f"none in {inputs}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
