"""Evidence held to the promotion rule once more, before an alias moves: nothing is promoted because a file says so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, date, datetime

from deploycheck.evidence import CandidateRecord, CheckRecord, Evidence, SpecRecord
from deploycheck.evidence.forms.json import as_json
from deploycheck.promotion import Candidate, Reason, Result, find_staleness, rule
from deploycheck.registry import Registry, RegistryError
from deploycheck.verdict import Outcome


def digest_of(evidence: Evidence) -> str:
    """Return the digest by which registries record evidence."""
    return f"sha256:{hashlib.sha256(as_json(evidence).encode()).hexdigest()}"


def find_refusals(spec: SpecRecord, created: str, now: datetime) -> list[str]:
    """Return why what a spec's record says is promotable may not be promoted ``now``, one sentence each."""
    chosen = spec.chosen
    results = {check.id: [Result(check.id, check.verdict, check.variant, check.artifact)] for check in spec.checks}
    candidates = [_candidate(chosen)] if chosen else []
    known = [*_untrusted(spec), *_ended_waivers(spec.checks, now.astimezone(UTC).date())]
    known += [Reason(why) for why in find_staleness(datetime.fromisoformat(created), now)]
    ruling = rule([*results, *spec.not_run], results, candidates, chosen.variant if chosen else "", known)
    return [str(reason) for reason in ruling.reasons]


def _candidate(chosen: CandidateRecord) -> Candidate:
    return Candidate(variant=chosen.variant, artifact=chosen.artifact, size=chosen.size)


def _untrusted(spec: SpecRecord) -> Iterator[Reason]:
    if spec.from_store:
        names = ", ".join(spec.from_store)
        yield Reason(f"{names}: taken from the store, not made by this run")


def _ended_waivers(checks: tuple[CheckRecord, ...], today: date) -> Iterator[Reason]:
    for check in checks:
        if check.verdict is Outcome.WAIVED and check.waived_until is None:
            yield Reason("it is waived, but the evidence has no waiver for it", check.id)
        elif check.waived_until and today > check.waived_until:
            yield Reason(f"its waiver ended on {check.waived_until.isoformat()}", check.id)


def check_recorded(registry: Registry, digest: str) -> None:
    """Raise ``RegistryError`` unless a run recorded this evidence."""
    if not registry.has_evidence(digest):
        raise RegistryError(
            "this evidence is not recorded in the registry: no run made it as it is, or the run couldn't write there",
            hint="run the gate again where it can write to the registry, and promote its evidence unchanged",
        )


def check_unused(registry: Registry, digest: str, model: str, alias: str) -> None:
    """Raise ``RegistryError`` where this evidence has moved this alias already."""
    for move in registry.history(model):
        if (move.alias, move.evidence_digest, move.reason) == (alias, digest, "promote"):
            raise RegistryError(
                f"this evidence was used at {move.time}, and {alias} has moved since: evidence promotes once",
                hint="run the gate again",
            )
