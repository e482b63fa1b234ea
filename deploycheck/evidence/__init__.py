"""The evidence of a run: the record, what is said of it, and its forms (``evidence/forms/``)."""

from deploycheck.evidence.record import (
    CandidateRecord,
    CheckRecord,
    Environment,
    Evidence,
    FileRecord,
    LoadRecord,
    MachineRecord,
    PromotionRecord,
    PropertyRecord,
    SpecRecord,
    StepRecord,
    TargetRecord,
    json_schema,
)
from deploycheck.evidence.report import Report

__all__ = [
    "CandidateRecord",
    "CheckRecord",
    "Environment",
    "Evidence",
    "FileRecord",
    "LoadRecord",
    "MachineRecord",
    "PromotionRecord",
    "PropertyRecord",
    "Report",
    "SpecRecord",
    "StepRecord",
    "TargetRecord",
    "json_schema",
]
