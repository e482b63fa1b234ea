"""The evidence: one document per run, with everything that its verdicts are based on.

The JSON Schema that is published in ``docs/reference/evidence.schema.json`` is generated from these models.
"""

from __future__ import annotations

import math
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from deploycheck.promotion import Decision
from deploycheck.verdict import Outcome


def _finite_or_none(value: Any) -> Any:
    """Return null for infinity and NaN, which JSON does not have: an unbounded or unknown number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite_or_none)]


PATH = "Relative to the project, or to the folder that the cache is in; of what is elsewhere, only the name"


class Record(BaseModel):
    """A part of the evidence: frozen, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class PropertyRecord(Record):
    """The search for a counterexample of a property."""

    examples: int = Field(description="Number of different inputs that were asked, up to the first counterexample")
    seed: int = Field(description="The seed of the search")
    saved: int = Field(description="How many of them earlier runs had saved; they were asked first")
    replayed: bool = Field(description="True where an input that an earlier run had saved is a counterexample again")
    violation: str = Field(description="How the property was violated; empty where it was not")
    counterexample: str = Field(description="The smallest input that was found to violate it, in words")
    inputs: str = Field(
        description=f"The file with its arrays (safetensors), kept for some runs; empty if it has none. {PATH}"
    )
    key: str = Field(description="The name under which counterexamples are saved for the next run")


class CheckRecord(Record):
    """One check as it was decided in this run."""

    id: str = Field(description="The id of the check and of its pytest item: specs/digits.yaml::train::accuracy")
    stage: str
    variant: str | None = None
    metric: str
    verdict: Outcome
    reached: bool = Field(
        default=True, description="False where a step that it needs failed; that step's check says why"
    )
    reason: str = Field(default="", description="One sentence: what was seen, or how much more data would decide it")
    value: Number = Field(default=None, description="In the metric's base unit: seconds, bytes, a fraction")
    unit: str = Field(default="", description="The base unit of value and interval")
    interval: tuple[Number, Number] | None = Field(
        default=None, description="One-sided bounds, each with the given confidence; null is unbounded"
    )
    confidence: float | None = Field(default=None, description="Null where only the value was compared")
    samples: int = 0
    threshold: str | None = Field(default=None, description="As in the spec, and in which slices")
    severity: Literal["error", "warn"] = "error"
    waiver: str | None = Field(default=None, description="Why, by whom and until when, where the spec waives the check")
    waived_until: date | None = Field(default=None, description="The last day of the waiver, where there is one")
    seconds: float = Field(default=0.0, description="Duration of the pytest item, with the work that it waited for")
    artifact: str = Field(default="", description="Digest of the exported artifact that was checked")
    shown: str = Field(default="", description="Value and interval as the summary prints them")
    property: PropertyRecord | None = Field(default=None, description="Of a property: how it was searched")
    attempts: int = Field(default=1, description="How often it was tried in this run; the worst attempt is recorded")


class MachineRecord(Record):
    """The state of the machine during a load test."""

    others: float = Field(description="Share of the machine that other processes took, 0..1")
    stolen: float = Field(description="Share of the machine that the host gave to others, 0..1")
    load_average: tuple[float, float] = Field(description="Over one minute, before and after")
    frequency_hz: tuple[float, float] = Field(description="Mean over the cores, before and after; 0 if unknown")


class LoadRecord(Record):
    """The load test of a served variant, and how it was measured."""

    variant: str
    requests: int = Field(description="Number of requests on the scenario's schedule")
    schedule: str = Field(description="When requests were sent, and how many of them warmed the server up")
    saturation: str = Field(description="How the server was kept busy")
    requests_per_s: tuple[Number, ...] = Field(description="Over consecutive blocks, while the server was kept busy")
    sent: int = Field(default=0, description="All requests of which `failed` counts, on the schedule and beyond it")
    failed: int
    failures: str = Field(description="Why requests failed, and how often")
    doubt: str = Field(description="Why the client may have caused high latencies; empty where it did not")
    seconds: float = Field(default=0.0, description="For how long requests were sent on the schedule")
    busy_seconds: float = Field(default=0.0, description="For how long the server was kept busy")
    disturbances: int = Field(default=0, description="How often the machine was disturbed")
    disturbed: tuple[str, ...] = Field(description="The first, the last and the longest disturbance of the machine")
    disturbed_requests: int = Field(
        default=0,
        description="How many of the requests were disturbed: these count towards a pass and not towards a failure",
    )
    histogram: str = Field(description="Latencies in µs as an HDR histogram (V2, compressed, base64), which merges")
    machine: MachineRecord | None = Field(description="Null where the system does not report it")


class StepRecord(Record):
    """One step of work, which the run did or found in the store."""

    step: str
    key: str = Field(description="The address in the store: a digest of everything that the result depends on")
    digest: str = Field(description="The digest of its result")
    path: str = Field(description=PATH)
    reused: bool = Field(description="True where the result was found in the store")
    because: str = Field(
        default="",
        description="Why the step was done again although an earlier run had done it; empty where it was found done "
        "or is new",
    )
    seconds: float
    loads: tuple[LoadRecord, ...] = Field(default=(), description="Its load tests, where it served variants")


class CandidateRecord(Record):
    """The variant that was chosen for promotion."""

    variant: str
    artifact: str
    key: str = Field(description="The address of its exported artifact in the store")
    path: str = Field(description=PATH)
    size: int = Field(description="Bytes")


class TargetRecord(Record):
    """Where a spec says that its model is promoted to."""

    registry: str | None = Field(description="URL of the registry; null is the one in the cache folder")
    model: str
    alias: str
    replaces: str | None = Field(
        default=None,
        description="Digest that the alias pointed at when the run looked: the baseline, and all that may be replaced; "
        "null is nothing",
    )


class FileRecord(Record):
    """A file that a spec is written in: the spec's own, or a standard that it extends."""

    name: str = Field(description="Its path in the project")
    sha256: str = Field(description="Of its bytes when it was read, 64 hex digits")


class PromotionRecord(Record):
    """A promotion that was done: where the model is now."""

    registry: str
    model: str
    alias: str
    variant: str
    artifact: str
    previous: str | None
    path: str = Field(description=PATH)


class SpecRecord(Record):
    """One spec (one cell of its matrix), and what the run decided about it."""

    id: str
    name: str
    digest: str
    files: tuple[FileRecord, ...] = Field(
        default=(), description="The spec's own file, then the standards that it extends, each before what it extends"
    )
    decision: Decision
    reasons: tuple[str, ...] = Field(default=(), description="Why it was withheld, one sentence each")
    other_reasons: tuple[str, ...] = Field(
        default=(),
        description="Those of the reasons that are not about one check, such as a registry that refused",
    )
    not_run: tuple[str, ...] = Field(default=(), description="Ids of the checks with no result")
    from_store: tuple[str, ...] = Field(
        default=(),
        description="Steps that verdicts are based on (the data, the outputs) and that this run found in the store; "
        "with any of them nothing is promoted",
    )
    target: TargetRecord | None = None
    chosen: CandidateRecord | None = None
    promotion: PromotionRecord | None = None
    checks: tuple[CheckRecord, ...] = ()
    steps: tuple[StepRecord, ...] = ()


def withheld(spec: SpecRecord, reason: str) -> SpecRecord:
    """Return the record of a spec that is withheld for one more reason, which is not about one check."""
    changed = {
        "decision": Decision.WITHHELD,
        "reasons": (*spec.reasons, reason),
        "other_reasons": (*spec.other_reasons, reason),
        "promotion": None,
    }
    return spec.model_copy(update=changed)


class Environment(Record):
    """The software and hardware of the run."""

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
