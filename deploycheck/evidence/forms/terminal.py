"""The evidence as a table for the terminal. Imported only when the table is shown, because it needs rich."""

from __future__ import annotations

import io
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploycheck.evidence.escape import one_line, visible
from deploycheck.evidence.record import CheckRecord, SpecRecord
from deploycheck.evidence.sentences import conclusion, done_again, error_rates, status
from deploycheck.promotion import Decision
from deploycheck.verdict import Outcome

STYLES = {
    Outcome.PASS: "green",
    Outcome.WARN: "yellow",
    Outcome.WAIVED: "yellow",
    Outcome.FAIL: "red",
    Outcome.UNDECIDED: "magenta",
    Outcome.ERROR: "bold red",
}


def as_table(specs: Iterable[SpecRecord], width: int, *, color: bool) -> str:
    """Return the terminal's summary: for each spec its checks, what was decided, and why.

    ``width`` is the terminal's, in columns: the table keeps to it, sentences are longer so that paths can be copied.
    """
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        height=25,
        force_terminal=color,
        no_color=not color,
        highlight=False,
        markup=False,
        emoji=False,
    )

    def show(line: str, style: str) -> None:
        console.print(Text(line, style=style if color else ""), soft_wrap=True)

    for spec in specs:
        show(one_line(f"{spec.id}  {spec.name}"), "bold")
        console.print(_table(spec.checks, color=color))
        for line in conclusion(spec):
            show(_indented(line), "red" if spec.decision is Decision.WITHHELD else "green")
        for line in (*error_rates(spec), *done_again(spec)):
            show(_indented(line), "dim")
        console.print()
    return out.getvalue()


def _table(checks: Iterable[CheckRecord], *, color: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    for column in ("stage", "check", "verdict", "measured", "threshold"):
        table.add_column(column, no_wrap=True)
    for check in checks:
        style = STYLES[check.verdict] if check.reached else "dim"
        verdict = Text(status(check), style=style if color else "")
        stage, metric, shown, threshold = map(one_line, (check.stage, check.metric, check.shown, check.threshold or ""))
        table.add_row(stage, metric, verdict, shown, threshold)
    return table


def _indented(sentence: str) -> str:
    """Return a sentence with its further lines indented, so that none of them looks like a sentence of its own."""
    return visible(sentence).replace("\n", "\n    ")
