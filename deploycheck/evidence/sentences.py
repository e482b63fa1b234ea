"""What is said of a verdict, a spec and a decision: plain sentences, which every form of the evidence shows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum

from deploycheck.evidence.record import CheckRecord, SpecRecord
from deploycheck.promotion import Decision
from deploycheck.verdict import Outcome

MOST_REASONS = 8
"""How many reasons a conclusion shows; the others are counted."""


class Missing(StrEnum):
    """Why a check has no verdict of its own."""

    NOT_REACHED = "not reached"
    """A step that the check needs failed."""
    DID_NOT_RUN = "did not run"


def status(check: CheckRecord) -> Outcome | Missing:
    """Return the verdict of a check, or that the check was not reached."""
    return check.verdict if check.reached else Missing.NOT_REACHED


def conclusion(spec: SpecRecord) -> Iterator[str]:
    """Yield what the run decided about a spec, one line each; lines that explain another are indented."""
    yield from _decision(spec)
    for check in spec.checks:
        if check.verdict is Outcome.WARN:
            yield f"warned: {_name(check)}: {_why(check)}"
        elif check.verdict is Outcome.PASS and check.threshold is None and check.reason:
            yield f"note: {_name(check)}: {check.reason}"
    yield from (f"waived: {_name(check)}, {check.waiver}" for check in spec.checks if check.waiver)
    for check in spec.checks:
        if check.attempts > 1:
            yield f"retried: {_name(check)}: tried {check.attempts} times; the worst counts: {check.verdict}"


def error_rates(spec: SpecRecord) -> Iterator[str]:
    """Yield how often all verdicts of a spec together can be wrong, where any of them is from a sample.

    Every check must pass, so a bad model needs one error to be accepted, and a good one is refused by any error:
    the errors against a good model add up, those against a bad one don't.
    """
    errors = [1 - check.confidence for check in spec.checks if check.confidence is not None]
    if errors:
        passed, failed = (f"{100 * error:.3g} times in 100" for error in (max(errors), min(1.0, math.fsum(errors))))
        yield (
            f"{len(errors)} verdict{'' if len(errors) == 1 else 's'} from samples: a model that misses a standard "
            f"passes at most {passed}, and one that just meets them all fails at most {failed}"
        )


def done_again(spec: SpecRecord) -> Iterator[str]:
    """Yield each step that an earlier run had done and that was done again, with the reason."""
    yield from (f"done again: {step.step} ({step.because})" for step in spec.steps if step.because)


def _decision(spec: SpecRecord) -> Iterator[str]:
    moved, chosen = spec.promotion, spec.chosen
    if spec.decision is Decision.WITHHELD:
        yield f"withheld: {_counts(spec)}"
        reasons = list(_reasons(spec))
        yield from (f"  {reason}" for reason in reasons[:MOST_REASONS])
        if len(reasons) > MOST_REASONS:
            yield f"  and {len(reasons) - MOST_REASONS} more, in the evidence"
    elif moved:
        what = f"{moved.model}@{moved.alias} ({moved.artifact[:19]}) in {moved.registry}"
        yield f"promoted: {moved.variant} is now {what}"
        yield f"stored in {moved.path}"
    elif chosen:
        yield f"promotable: {chosen.variant} ({chosen.artifact[:19]}), with --deploycheck-promote"
        yield f"stored in {chosen.path}"
    else:
        yield "every check passed; the spec has no `promote`"


def _counts(spec: SpecRecord) -> str:
    counts = Counter(map(status, spec.checks))
    counts[Missing.DID_NOT_RUN] = len(spec.not_run)
    words = (*Outcome, *Missing)
    return ", ".join(f"{counts[word]} {word}" for word in words if counts[word]) or "no check ran"


def _reasons(spec: SpecRecord) -> Iterator[str]:
    """Yield each check that blocked the promotion, with what was measured, then the reasons that are of no one check.

    Checks that were not reached and checks that did not run are only counted: the check of the failed step says why.
    """
    for check in spec.checks:
        if check.verdict.blocks and check.reached:
            yield ": ".join(filter(None, (_name(check), check.verdict, _why(check))))
    yield from spec.other_reasons


def _name(check: CheckRecord) -> str:
    return f"{check.stage}::{check.metric}"


def _why(check: CheckRecord) -> str:
    """Return what was measured, and why that does not pass."""
    measured = f"{check.shown}, the standard is {check.threshold}" if check.shown else ""
    return "; ".join(filter(None, (measured, check.reason)))
