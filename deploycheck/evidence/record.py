"""The evidence: one document a run, with everything a verdict rests on.

The JSON Schema that is published in ``docs/reference/evidence.schema.json`` is generated from these models.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from deploycheck.promotion import Decision
from deploycheck.verdict import Outcome


def _finite_or_none(value: Any) -> Any:
    """JSON has no infinity and no NaN: what is unbounded or unknown is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite_or_none)]


class Record(BaseModel):
    """A part of the evidence: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class CheckRecord(Record):
    """One check as it was decided in this run."""

    id: str = Field(description="The check's id, which is its pytest item's: specs/digits.yaml::train::accuracy")
    stage: str
    variant: str | None = None
    metric: str
    verdict: Outcome
    reached: bool = Field(default=True, description="False where a stage it needs failed: that stage's check says why")
    reason: str = Field(default="", description="One sentence: what was seen, or what would decide it")
    value: Number = Field(default=None, description="In the metric's base unit: seconds, bytes, a fraction")
    unit: str = Field(default="", description="The base unit of value and interval")
    interval: tuple[Number, Number] | None = Field(
        default=None, description="One-sided bounds, each at the confidence; null is unbounded"
    )
    confidence: float | None = Field(default=None, description="Null where the bare value was compared")
    samples: int = 0
    threshold: str | None = Field(default=None, description="As the spec writes it, and in which slices")
    severity: Literal["error", "warn"] = "error"
    waiver: str | None = Field(default=None, description="Why, by whom and until when, where the spec waives it")
    seconds: float = Field(default=0.0, description="What the item took, the work it had to wait for included")
    artifact: str = Field(default="", description="Digest of the exported artifact that the check speaks of")
    shown: str = Field(default="", description="Value and interval as the summary prints them")


class MachineRecord(Record):
    """What the machine was like while a load lasted."""

    others: float = Field(description="Share of the machine that other processes took, 0..1")
    stolen: float = Field(description="Share of the machine that the host withheld, 0..1")
    load_average: tuple[float, float] = Field(description="Over a minute, before and after")
    frequency_hz: tuple[float, float] = Field(description="The mean of the cores', before and after; 0 if untold")


class LoadRecord(Record):
    """A variant served under load, and how that was taken."""

    variant: str
    requests: int = Field(description="Those whose latency counts")
    schedule: str = Field(description="When requests left, and how many of them warmed the server up")
    saturation: str = Field(description="How the server was kept busy")
    requests_per_s: tuple[Number, ...] = Field(description="Over consecutive blocks of a server kept busy")
    failed: int
    failures: str = Field(description="Why requests failed, and how often")
    doubt: str = Field(description="Why high latencies could be the client's fault, where they could")
    disturbed: tuple[str, ...] = Field(description="A line for each stretch that was taken again, and why")
    histogram: str = Field(description="Latencies in µs as an HDR histogram (V2, compressed, base64), which merges")
    machine: MachineRecord | None = Field(description="Null where the system doesn't tell")


class StepRecord(Record):
    """One step of work that the run did or found done."""

    step: str
    key: str = Field(description="The address: a digest of everything the step was decided by")
    digest: str = Field(description="The digest of what it made")
    path: str
    reused: bool
    seconds: float
    loads: tuple[LoadRecord, ...] = Field(default=(), description="What it measured, where it served a variant")


class CandidateRecord(Record):
    """A variant that stood for promotion."""

    variant: str
    artifact: str
    path: str
    size: int = Field(description="Bytes")


class TargetRecord(Record):
    """Where a spec wants its model promoted."""

    registry: str | None = Field(description="Its URL; null is the one in the cache folder")
    model: str
    alias: str


class PromotionRecord(Record):
    """Where a promotion left the model."""

    registry: str
    model: str
    alias: str
    variant: str
    artifact: str
    previous: str | None
    path: str


class SpecRecord(Record):
    """One spec (one cell of its matrix) and what the run came to."""

    id: str
    name: str
    digest: str
    decision: Decision
    reasons: tuple[str, ...] = Field(default=(), description="Why it was withheld, one sentence each")
    not_run: tuple[str, ...] = Field(default=(), description="Ids of the checks with no result")
    target: TargetRecord | None = None
    chosen: CandidateRecord | None = None
    promotion: PromotionRecord | None = None
    checks: tuple[CheckRecord, ...] = ()
    steps: tuple[StepRecord, ...] = ()


class Environment(Record):
    """Where the run took place."""

    python: str
    platform: str
    device: str
    cores: int
    versions: dict[str, str]


class Evidence(Record):
    """The whole document."""

    format: Literal["deploycheck-evidence"] = "deploycheck-evidence"
    version: Literal[1] = 1
    run: str = Field(description="An id, new for each run")
    created: str = Field(description="When the run ended, ISO 8601 in UTC")
    environment: Environment
    specs: tuple[SpecRecord, ...]


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the evidence."""
    schema = Evidence.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
