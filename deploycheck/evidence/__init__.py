"""The evidence of a run: the record, and its faces."""

from deploycheck.evidence.record import (
    CandidateRecord,
    CheckRecord,
    Environment,
    Evidence,
    LoadRecord,
    MachineRecord,
    PromotionRecord,
    SpecRecord,
    StepRecord,
    TargetRecord,
    json_schema,
)

__all__ = [
    "CandidateRecord",
    "CheckRecord",
    "Environment",
    "Evidence",
    "LoadRecord",
    "MachineRecord",
    "PromotionRecord",
    "SpecRecord",
    "StepRecord",
    "TargetRecord",
    "json_schema",
]
