"""The evidence as Markdown, for a review."""

from __future__ import annotations

from collections.abc import Iterator

from deploycheck.evidence.escape import markdown, markdown_block
from deploycheck.evidence.record import Evidence, SpecRecord
from deploycheck.evidence.report import Report
from deploycheck.evidence.sentences import conclusion, done_again, error_rates, status


def as_markdown(evidence: Evidence) -> str:
    """Return the evidence as Markdown: for each spec a heading, the conclusion and a table of its checks."""
    return "\n".join(line for spec in evidence.specs for line in _lines(spec)) + "\n"


def _lines(spec: SpecRecord) -> Iterator[str]:
    yield f"## {markdown(spec.id)}: {spec.decision}\n"
    for line in (*conclusion(spec), *error_rates(spec), *done_again(spec)):
        indent = "  " if line.startswith(" ") else ""
        yield f"{indent}- {markdown_block(line)}"
    yield "\n| check | verdict | measured | threshold | |\n| --- | --- | --- | --- | --- |"
    for check in spec.checks:
        cells = (f"{check.stage}::{check.metric}", status(check), check.shown, check.threshold or "", check.reason)
        yield "| " + " | ".join(map(markdown, cells)) + " |"
    yield ""


MARKDOWN_REPORT = Report(".md", as_markdown)
