"""The evidence as text: JSON for machines, Markdown for a review, a table for the terminal."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterable, Iterator

from deploycheck.evidence.record import CheckRecord, Evidence, SpecRecord
from deploycheck.promotion import Decision
from deploycheck.verdict import Outcome

STYLES = {
    Outcome.PASS: "green", Outcome.WARN: "yellow", Outcome.WAIVED: "yellow", Outcome.FAIL: "red",
    Outcome.UNDECIDED: "magenta", Outcome.ERROR: "bold red",
}  # fmt: skip
MOST_REASONS = 8
NOT_REACHED, DID_NOT_RUN = "not reached", "did not run"


def as_json(evidence: Evidence) -> str:
    """Return the evidence as the JSON document that its schema describes."""
    return evidence.model_dump_json(indent=1) + "\n"


def as_markdown(evidence: Evidence) -> str:
    """Return the evidence as Markdown: a heading and a table a spec."""
    return "\n".join(line for spec in evidence.specs for line in _markdown(spec)) + "\n"


def _markdown(spec: SpecRecord) -> Iterator[str]:
    yield f"## {spec.id}: {spec.decision}\n"
    yield from (f"- {_cell(line)}" for line in (*conclusion(spec), *_promise(spec)))
    yield "\n| check | verdict | measured | threshold | |\n| --- | --- | --- | --- | --- |"
    for check in spec.checks:
        cells = (
            check.stage + "::" + check.metric,
            _word(check),
            check.shown,
            check.threshold or "",
            check.reason,
        )
        yield "| " + " | ".join(map(_cell, cells)) + " |"
    yield ""


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").splitlines())


def as_table(specs: Iterable[SpecRecord], width: int, *, color: bool) -> str:
    """Return the terminal's summary: for each spec what was measured, and what was promoted or stood in the way."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = io.StringIO()
    console = Console(
        file=out, width=width, height=25, force_terminal=color, no_color=not color, highlight=False, markup=False,
        emoji=False,
    )  # fmt: skip
    for spec in specs:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
        for column in ("stage", "check", "verdict", "measured", "threshold"):
            table.add_column(column, no_wrap=True)
        for check in spec.checks:
            style = STYLES[check.verdict] if check.reached else "dim"
            verdict = Text(_word(check), style=style if color else "")
            table.add_row(check.stage, check.metric, verdict, check.shown, check.threshold or "")
        console.print(Text(f"{spec.id}  {spec.name}", style="bold" if color else ""))
        console.print(table)
        for line in conclusion(spec):
            console.print(Text(line, style=_style(spec.decision) if color else ""), soft_wrap=True)
        for line in _promise(spec):
            console.print(Text(line, style="dim" if color else ""), soft_wrap=True)
        console.print()
    return out.getvalue()


def _style(decision: Decision) -> str:
    return "red" if decision is Decision.WITHHELD else "green"


def conclusion(spec: SpecRecord) -> Iterator[str]:
    """Yield what the run came to for a spec, a line each."""
    if spec.promotion:
        moved = spec.promotion
        stands = f"{moved.model}@{moved.alias} ({moved.artifact[:19]}) in {moved.registry}"
        yield f"promoted: {moved.variant} is now {stands}"
        yield f"it lies in {moved.path}"
    elif spec.decision is Decision.PROMOTABLE and spec.chosen:
        yield f"promotable: {spec.chosen.variant} ({spec.chosen.artifact[:19]}), with --deploycheck-promote"
        yield f"it lies in {spec.chosen.path}"
    elif spec.decision is Decision.PROMOTABLE:
        yield "every check passed; the spec has no `promote`"
    else:
        yield f"withheld: {_counted(spec)}"
        reasons = list(_standing_in_the_way(spec))
        yield from (f"  {reason}" for reason in reasons[:MOST_REASONS])
        if len(reasons) > MOST_REASONS:
            yield f"  and {len(reasons) - MOST_REASONS} more, in the evidence"
    for check in spec.checks:
        if check.verdict is Outcome.WARN:
            yield f"warned: {check.stage}::{check.metric}: {_why(check)}"
    waived = [check for check in spec.checks if check.waiver]
    yield from (f"waived: {check.stage}::{check.metric}, {check.waiver}" for check in waived)


def _promise(spec: SpecRecord) -> Iterator[str]:
    """Yield what all verdicts together promise: each must pass, so that errors add up on one side alone."""
    errors = [1 - check.confidence for check in spec.checks if check.confidence is not None]
    if errors:
        passed, failed = (f"{100 * error:.3g} times in 100" for error in (max(errors), min(1.0, math.fsum(errors))))
        yield (
            f"{len(errors)} verdict{'' if len(errors) == 1 else 's'} from samples: a model that misses a standard "
            f"passes at most {passed}, and one that just meets them all fails at most {failed}"
        )


def _counted(spec: SpecRecord) -> str:
    counts = Counter(_word(check) for check in spec.checks)
    counts[DID_NOT_RUN] = len(spec.not_run)
    words = (*Outcome, NOT_REACHED, DID_NOT_RUN)
    return ", ".join(f"{counts[word]} {word}" for word in words if counts[word]) or "no check ran"


def _word(check: CheckRecord) -> str:
    return check.verdict.value if check.reached else NOT_REACHED


def _why(check: CheckRecord) -> str:
    """Return what was measured, and why that is no pass."""
    measured = f"{check.shown}, the standard is {check.threshold}" if check.shown else ""
    return "; ".join(filter(None, (measured, check.reason)))


def _standing_in_the_way(spec: SpecRecord) -> Iterator[str]:
    """Yield what did not pass, with what was measured; then what else the promotion rule says.

    What was not reached is told by its count alone: the check at its root says why. So is what did not run.
    """
    for check in spec.checks:
        if check.verdict.blocks and check.reached:
            yield ": ".join(filter(None, (f"{check.stage}::{check.metric}", check.verdict, _why(check))))
    told = (*spec.not_run, *(check.id for check in spec.checks))
    yield from (reason for reason in spec.reasons if not any(reason.startswith(f"{id}: ") for id in told))
