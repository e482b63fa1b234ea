"""The evidence as JSON, for machines."""

from __future__ import annotations

from deploycheck.evidence.escape import json_text
from deploycheck.evidence.record import Evidence
from deploycheck.evidence.report import Report


def as_json(evidence: Evidence) -> str:
    """Return the evidence as the JSON document that its schema describes."""
    return json_text(evidence.model_dump_json(indent=1)) + "\n"


JSON_REPORT = Report(".json", as_json)
