"""Evidence as a run leaves it, by hand; every part can be replaced by keyword."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from deploycheck.evidence import (
    CandidateRecord,
    CheckRecord,
    Environment,
    Evidence,
    PromotionRecord,
    SpecRecord,
    StepRecord,
)
from deploycheck.promotion import Decision
from deploycheck.verdict import Outcome

DIGEST = "sha256:" + "ab" * 32
CHOSEN = CandidateRecord(variant="int8", artifact=DIGEST, key="ab" * 32, path="/cache/model/ab", size=34_200)
MOVED = PromotionRecord(
    registry="sqlite:registry.db",
    model="digits",
    alias="staging",
    variant="int8",
    artifact=DIGEST,
    previous=None,
    path="/registry.artifacts/ab",
)


def check(**fields: Any) -> CheckRecord:
    shown = {
        "id": "specs/digits.yaml::train::accuracy",
        "stage": "train",
        "variant": "trained",
        "metric": "accuracy",
        "verdict": "pass",
        "value": 0.979,
        "interval": (0.968, 0.987),
        "confidence": 0.95,
        "samples": 719,
        "threshold": ">= 97 %",
        "artifact": DIGEST,
        "shown": "97.9 % (96.8 to 98.7)",
    }
    return CheckRecord(**{**shown, **fields})


def spec(*checks: CheckRecord, **fields: Any) -> SpecRecord:
    named = {"id": "specs/digits.yaml", "name": "digits", "digest": "cd" * 32, "decision": Decision.PROMOTABLE}
    return SpecRecord(checks=checks, **{**named, **fields})


def step(**fields: Any) -> StepRecord:
    made = {"step": "data", "key": "ef" * 32, "digest": DIGEST, "path": "/cache/data/ef", "reused": False}
    return StepRecord(**{**made, "seconds": 0.5, **fields})


def evidence(*specs: SpecRecord) -> Evidence:
    environment = Environment(python="3.11.7", platform="Linux", device="cpu", cores=2, versions={"jax": "0.10.2"})
    return Evidence(run="0f3a", created="2026-11-23T15:00:00+00:00", environment=environment, specs=specs)


NUMBERS = st.none() | st.floats()
CHECKS = st.builds(
    CheckRecord,
    id=st.text(),
    stage=st.text(),
    variant=st.none() | st.text(),
    metric=st.text(),
    verdict=st.sampled_from(Outcome),
    reason=st.text(),
    value=NUMBERS,
    unit=st.sampled_from(["", "s", "B", "/s", "x"]),
    interval=st.none() | st.tuples(NUMBERS, NUMBERS),
    confidence=st.none() | st.floats(0.5, 1, exclude_max=True),
    samples=st.integers(0, 10**12),
    threshold=st.none() | st.text(),
    severity=st.sampled_from(["error", "warn"]),
    waiver=st.none() | st.text(),
    seconds=st.floats(0, 1e9),
    shown=st.text(),
)
STEPS = st.builds(
    StepRecord,
    step=st.text(),
    key=st.text(),
    digest=st.text(),
    path=st.text(),
    reused=st.booleans(),
    because=st.text(),
    seconds=st.floats(0, 1e9),
)
SPECS = st.builds(
    SpecRecord,
    id=st.text(),
    name=st.text(),
    digest=st.text(),
    decision=st.sampled_from(Decision),
    reasons=st.lists(st.text(), max_size=2).map(tuple),
    other_reasons=st.lists(st.text(), max_size=2).map(tuple),
    checks=st.lists(CHECKS, max_size=2).map(tuple),
    steps=st.lists(STEPS, max_size=2).map(tuple),
)
EVIDENCE = st.lists(SPECS, max_size=2).map(lambda specs: evidence(*specs))
