"""One check, judged: its measurement held against its threshold, as a record for the evidence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from pathlib import Path

from deploycheck.evidence import CheckRecord, LoadRecord, MachineRecord, StepRecord
from deploycheck.evidence.show import BASE_UNITS, with_interval
from deploycheck.plan import Check, Plan
from deploycheck.runner.run import ANEW_IN_EACH_RUN, NoBaseline, Runner
from deploycheck.serving import report
from deploycheck.verdict import Outcome, decide, settle


def judge(runner: Runner, plan: Plan, check: Check, today: date) -> CheckRecord:
    """Measure and decide one check. The steps it needs are done first, where they aren't yet."""
    try:
        done = [runner.step(plan, name) for name in check.needs]
    except NoBaseline as error:
        return _without_baseline(plan, check, error.what)
    blank = unjudged(plan, check, Outcome.PASS, "")
    artifact = runner.artifact_of(plan, check.variant)
    blank = blank.model_copy(update={"artifact": artifact.digest if artifact else ""})
    if check.threshold is None:
        return blank.model_copy(update={"shown": "found done" if all(step.reused for step in done) else "done"})
    measurement = runner.measure(plan, check)
    waiver = plan.spec.waive.get(check.key)
    verdict = decide(measurement, check.threshold, plan.spec.confidence)
    verdict = settle(verdict, check.severity, waiver.until if waiver else None, today)
    dimension = check.threshold.dimension
    exact = verdict.confidence is None
    return blank.model_copy(
        update={
            "verdict": verdict.outcome,
            "reason": verdict.reason,
            "value": _finite(verdict.value),
            "unit": BASE_UNITS[dimension],
            "interval": None if exact else (_finite(verdict.low), _finite(verdict.high)),
            "confidence": verdict.confidence,
            "samples": verdict.samples,
            "shown": with_interval(verdict.value, verdict.low, verdict.high, dimension),
        }
    )


def _without_baseline(plan: Plan, check: Check, why: str) -> CheckRecord:
    """Return the record of a check with nothing to compare with: a first promotion is let through only if asked for."""
    if check.baseline == "optional":
        return unjudged(plan, check, Outcome.WARN, f"{why}, which the spec allows (baseline: optional)")
    hint = "for the first promotion say `baseline: optional` under `promote`"
    return unjudged(plan, check, Outcome.FAIL, f"{why}, and the spec requires one; {hint}")


def unjudged(plan: Plan, check: Check, outcome: Outcome, reason: str) -> CheckRecord:
    """Return the record of a check with nothing measured."""
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
        waiver=f"{waiver.because} (until {waiver.until.isoformat()}, by {waiver.by})" if waiver else None,
    )


def _standard(check: Check) -> str | None:
    """Return what a check asks for, as the spec writes it, and of which slices."""
    if check.threshold is None:
        return None
    return f"{check.threshold.text}, in every {check.slices.by}" if check.slices else check.threshold.text


def steps_of(runner: Runner, plan: Plan, check: Check) -> list[StepRecord]:
    """Return the record of each step that a check needed, as far as this process has it."""
    done = runner.steps_done(plan)
    return [
        StepRecord(
            step=name, key=item.artifact.key, digest=item.artifact.digest, path=str(item.artifact.path),
            reused=item.reused, seconds=round(item.seconds, 3),
            loads=tuple(_loads(item.artifact.path)) if plan.steps[name].kind in ANEW_IN_EACH_RUN else (),
        )
        for name, item in done.items()
        if name in check.needs or name in (f"model[{check.variant}]", f"model[{check.against}]")
    ]  # fmt: skip


def _loads(folder: Path) -> Iterator[LoadRecord]:
    for variant, load in report.read(folder).items():
        yield LoadRecord(
            variant=variant, requests=len(load.latencies_s), schedule=load.schedule, saturation=load.saturation,
            requests_per_s=load.requests_per_s, failed=load.failed, failures=load.failures, doubt=load.doubt,
            disturbed=load.disturbed, histogram=load.histogram,
            machine=MachineRecord(**asdict(load.machine)) if load.machine else None,
        )  # fmt: skip


def _finite(value: float) -> float | None:
    return value if abs(value) != float("inf") and value == value else None
