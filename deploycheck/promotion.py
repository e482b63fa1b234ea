"""The promotion rule: what a run must have shown before a model is promoted.

A pure function of every check that a spec has and the outcome of each. It returns a decision and the reasons. A check
that was not run, did not finish or is undecided counts against promotion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from deploycheck.registry.ledger import CLOCK_TOLERANCE
from deploycheck.verdict import Outcome

MAX_AGE = timedelta(days=30)
"""How old evidence may be that is promoted."""


class Decision(StrEnum):
    """What a run decided for one spec."""

    WITHHELD = "withheld"
    PROMOTABLE = "promotable"
    PROMOTED = "promoted"


@dataclass(frozen=True)
class Result:
    """The outcome of one attempt at a check, and the digest of the exported artifact that was checked.

    ``artifact`` is empty for a check that is not of a variant, such as one of the data.
    """

    check: str
    outcome: Outcome
    variant: str | None = None
    artifact: str = ""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A variant that could be promoted, with the values that policies compare: bytes, a fraction, seconds."""

    variant: str
    artifact: str
    size: int
    accuracy: float | None = None
    latency: float | None = None


@dataclass(frozen=True)
class Reason:
    """Why promotion is withheld: ``what`` was found, for one check (its id) or for the spec as a whole (None)."""

    what: str
    check: str | None = None

    def __str__(self) -> str:
        return f"{self.check}: {self.what}" if self.check else self.what


@dataclass(frozen=True)
class Ruling:
    """The decision, why it was withheld (one sentence each), and which variant would be promoted."""

    decision: Decision
    reasons: tuple[Reason, ...]
    chosen: Candidate | None = None


def rule(
    expected: Sequence[str],
    results: Mapping[str, Sequence[Result]],
    candidates: Sequence[Candidate],
    choose: str,
    known: Sequence[Reason] = (),
) -> Ruling:
    """Decide whether a variant of one spec may be promoted, and which.

    ``expected`` are the ids of all its checks; ``results`` the result of each attempt at a check (a retried check
    has several, and each counts); ``candidates`` the variants in the order the spec names them; ``choose`` the
    spec's policy: ``smallest``, ``fastest``, ``most_accurate`` or a variant's name; ``known`` what already forbids it.
    """
    reasons = [*known, *_unfinished(expected, results), *_mixed_artifacts(results)]
    if not expected:
        reasons.append(Reason("the spec has no checks: nothing was shown"))
    if reasons:
        return Ruling(Decision.WITHHELD, tuple(reasons))
    chosen = _choose(candidates, choose)
    if isinstance(chosen, str):
        return Ruling(Decision.WITHHELD, (Reason(chosen),))
    for checked in _checked_artifacts(results).get(chosen.variant, set()) - {chosen.artifact}:
        what = f"{chosen.variant}: the artifact is {chosen.artifact}, its checks were run on {checked}"
        return Ruling(Decision.WITHHELD, (Reason(what),))
    return Ruling(Decision.PROMOTABLE, (), chosen)


def find_staleness(created: datetime, now: datetime) -> list[str]:
    """Return why evidence of this time can't be promoted ``now``: it is too old, or a clock is wrong."""
    if created - now > CLOCK_TOLERANCE:
        return [f"the evidence was made at {created.isoformat()}, which is later than this machine's clock says"]
    if now - created > MAX_AGE:
        return [f"the evidence is of {created.isoformat()}, more than {MAX_AGE.days} days old: run the gate again"]
    return []


def _unfinished(expected: Sequence[str], results: Mapping[str, Sequence[Result]]) -> list[Reason]:
    missing = [check for check in expected if not results.get(check)]
    reasons = [Reason("did not run", check) for check in missing]
    for check in expected:
        blocking = [result.outcome for result in results.get(check, ()) if result.outcome.blocks]
        if blocking:
            reasons.append(Reason(blocking[0].value, check))
    return reasons


def _mixed_artifacts(results: Mapping[str, Sequence[Result]]) -> list[Reason]:
    """Name variants whose checks did not all speak of the same bytes."""
    return [
        Reason(f"{variant}: its checks were run on {len(digests)} different artifacts")
        for variant, digests in _checked_artifacts(results).items()
        if len(digests) > 1
    ]


def _checked_artifacts(results: Mapping[str, Sequence[Result]]) -> dict[str, set[str]]:
    """Return the digests of the artifacts that each variant's checks were run on."""
    found: dict[str, set[str]] = {}
    for attempts in results.values():
        for result in attempts:
            if result.variant and result.artifact:
                found.setdefault(result.variant, set()).add(result.artifact)
    return found


def _choose(candidates: Sequence[Candidate], policy: str) -> Candidate | str:
    """Return the variant that the policy chooses, or why there is none; of equal ones, the first in the spec."""
    keys: dict[str, Callable[[Candidate], float | None]] = {
        "smallest": lambda candidate: candidate.size,
        "fastest": lambda candidate: candidate.latency,
        "most_accurate": lambda candidate: None if candidate.accuracy is None else -candidate.accuracy,
    }
    if policy not in keys:
        named = [candidate for candidate in candidates if candidate.variant == policy]
        return named[0] if named else f"there is no artifact of the variant {policy!r}, which `choose` names"
    values = {candidate.variant: keys[policy](candidate) for candidate in candidates}
    known = {variant: value for variant, value in values.items() if value is not None}
    if not known or len(known) < len(values):
        unknown = ", ".join(values.keys() - known.keys()) or "any variant"
        return f"`choose: {policy}` can't compare the variants: no value was measured for {unknown}"
    return min(candidates, key=lambda candidate: known[candidate.variant])
