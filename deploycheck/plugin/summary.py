"""The part of pytest's summary that says what was decided."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from deploycheck.evidence import Evidence
from deploycheck.evidence.escape import one_line, visible
from deploycheck.language import SUFFIXES

WIDEST = 160
"""Columns of the table at least: on a narrower terminal its lines wrap, and none of its words is cut."""
MOST_SKIPPED = 10
"""Names of skipped files."""


def write_summary(
    reporter: Any,
    *,
    evidence: Evidence | None,
    skipped: Iterable[str],
    notes: Sequence[str],
    problems: Sequence[str],
    written: Sequence[Path],
) -> None:
    """Write what was decided and why, and where the evidence is; ``reporter`` is pytest's terminal reporter."""
    reporter.section("deploycheck")
    if evidence:
        from deploycheck.evidence.forms.terminal import as_table

        writer = reporter._tw  # the only way to pytest's own choice of colours
        reporter.write(as_table(evidence.specs, max(WIDEST, writer.fullwidth), color=writer.hasmarkup))
    if skipped:
        reporter.write_line(_describe_skipped(sorted(skipped)))
    for note in notes:
        reporter.write_line(visible(f"note: {note}"), yellow=True)
    for problem in problems:
        reporter.write_line(visible(f"error: {problem}"), red=True)
    for path in written:
        reporter.write_line(one_line(f"evidence: {path}"))


def _describe_skipped(files: list[str]) -> str:
    """Return the line that names the files that look like specs and don't say that they are."""
    named = ", ".join(map(one_line, files[:MOST_SKIPPED]))
    others = f" and {len(files) - MOST_SKIPPED} more" if len(files) > MOST_SKIPPED else ""
    count = "1 file" if len(files) == 1 else f"{len(files)} files"
    return f"skipped: {count} without a top-level key `deploycheck`: {named}{others}"


def show_ids_as_given(reporter: Any) -> None:
    """Make pytest's short summary show ids that can be given to pytest again.

    From 9.2 it takes all that follows the first bracket of an id for parameters, and shows them with a bracket at
    the end: ``serve[int8]::errors]``. Its caches and JUnit, which need the id as it was parsed, are done by now.
    """
    for report in (report for reports in reporter.stats.values() for report in reports):
        parsed: Any = getattr(report, "_id", None)
        path, _, rest = str(parsed).partition("::")
        if rest and path.lower().endswith(SUFFIXES) and not rest.endswith("]"):
            report._id = dataclasses.replace(parsed, names=tuple(rest.split("::")), params=None)
