"""What a report is: the evidence of a run, written to a file in one form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deploycheck.evidence.record import Evidence


@dataclass(frozen=True)
class Report:
    """One form of the evidence: ``suffix`` of its files, such as ``.json``, and what renders their content.

    Text is written as UTF-8.
    """

    suffix: str
    render: Callable[[Evidence], str | bytes]
