"""What every registry stores, and what its methods promise."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Protocol

from deploycheck.errors import DeploycheckError
from deploycheck.store import Artifact, loadable_until

GENESIS = "0" * 64
"""The ``previous_hash`` of the first entry."""
CLOCK_TOLERANCE = timedelta(minutes=5)
"""By how much the clocks of the machines that decide and promote may differ."""

_encode = json.JSONEncoder(sort_keys=True).encode


class RegistryError(DeploycheckError):
    """The registry can't do what it was asked to do; nothing was changed."""


class StalePromotion(RegistryError):
    """Someone else moved the alias since it was read; nothing was changed."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """A model's artifact in the registry, with the evidence it was proposed with.

    ``digest`` and ``evidence_digest`` are ``sha256:`` and 64 hex digits; ``path`` is the registry's own copy.
    """

    model: str
    digest: str
    evidence_digest: str
    path: Path
    created: str


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """One move of an alias. Each has the hash of the one before, so that a changed history is noticed."""

    seq: int
    model: str
    alias: str
    from_digest: str | None
    to_digest: str
    evidence_digest: str
    actor: str
    time: str
    reason: Literal["promote", "roll_back"]
    previous_hash: str
    hash: str

    def compute_hash(self) -> str:
        """Return the hash that its content should have."""
        return _hash(vars(self))

    @property
    def title(self) -> str:
        """How messages name it."""
        return f"promotion {self.seq} of {self.model}"


@dataclass(frozen=True, kw_only=True)
class EvidenceEntry:
    """The digest of evidence that a run made: no other evidence is promoted. Its hashes are as ``Promotion``'s."""

    seq: int
    digest: str
    time: str
    previous_hash: str
    hash: str

    def compute_hash(self) -> str:
        """Return the hash that its content should have."""
        return _hash(vars(self))

    @property
    def title(self) -> str:
        """How messages name it."""
        return f"evidence {self.seq}"


Entry = Promotion | EvidenceEntry


def _hash(entry: Mapping[str, Any]) -> str:
    content = {name: value for name, value in entry.items() if name != "hash"}
    return hashlib.sha256(_encode(content).encode()).hexdigest()


def chain_problems(entries: Iterable[Entry]) -> list[str]:
    """Return what is wrong with all entries of one kind, oldest first: entries changed, removed or inserted.

    Entries removed from the end are not noticed: the rest is a valid history.
    """
    problems = []
    previous, expected = GENESIS, 1
    for entry in entries:
        if entry.hash != entry.compute_hash():
            problems.append(f"{entry.title} was changed after it was written")
        if entry.seq != expected:
            kind = entry.title.partition(" ")[0]
            problems.append(f"{kind} {expected} is missing from the history")
        elif entry.previous_hash != previous:
            problems.append(f"{entry.title} doesn't follow the one before it")
        previous, expected = entry.hash, entry.seq + 1
    return problems


def check_chain(entries: Iterable[Entry], where: str) -> None:
    """Raise ``RegistryError`` where anything is wrong with all entries of one kind."""
    problems = chain_problems(entries)
    if problems:
        hint = "see all with `deploycheck registry verify`, and restore the registry from a copy"
        raise RegistryError(f"its history can't be trusted: {problems[0]}", where=where, hint=hint)


def next_entry(entries: Sequence[Entry]) -> tuple[int, str]:
    """Return the number of the entry after these, and the hash of the one before it."""
    return (entries[-1].seq + 1, entries[-1].hash) if entries else (1, GENESIS)


def moves_of(history: Iterable[Promotion], model: str, alias: str) -> tuple[Promotion, ...]:
    """Return the moves of one alias."""
    return tuple(move for move in history if (move.model, move.alias) == (model, alias))


def check_clock(time: str, newest: str | None) -> None:
    """Raise ``RegistryError`` where the time of a new entry is before that of the newest one."""
    if newest and datetime.fromisoformat(time) < datetime.fromisoformat(newest) - CLOCK_TOLERANCE:
        raise RegistryError(
            f"the clock says {time}, but the newest entry was written at {newest}",
            hint="set the clock of this machine: waivers and exports expire by it",
        )


def promotions_in_force(moves: Sequence[Promotion]) -> list[Promotion]:
    """Return the promotions of an alias that weren't rolled back, oldest first: rolling back undoes the last one.

    ``moves`` are all of one alias, oldest first. Raises ``RegistryError`` where they undo more than was promoted.
    """
    in_force: list[Promotion] = []
    for move in moves:
        if move.reason == "promote":
            in_force.append(move)
        elif in_force:
            in_force.pop()
    if moves and (not in_force or in_force[-1].to_digest != moves[-1].to_digest):
        raise RegistryError(
            "the history is inconsistent: it doesn't lead to the version that the alias points at",
            where=f"{moves[-1].model} {moves[-1].alias}",
            hint="verify the registry, and restore it from a copy",
        )
    return in_force


def find_expiry(artifact: Artifact, time: str) -> date | None:
    """Return the last day on which an export could be loaded, where that day is before ``time``; else None.

    An artifact without such a day never expires. Raises ``CorruptArtifact`` where its day is not a date.
    """
    last = loadable_until(artifact)
    return last if last and datetime.fromisoformat(time).date() > last else None


class Registry(Protocol):
    """A registry of promoted models. Times are ISO 8601 in UTC.

    Names of models and aliases are ``[a-z0-9][a-z0-9._-]{0,63}``. Every method raises ``RegistryError`` where
    the registry can't be used, ``CorruptArtifact`` where the bytes it would point at are damaged. All but ``history``
    and ``verify`` check the hashes of the whole history first. No entry is added before the newest one's time.
    """

    def propose(self, model: str, artifact: Artifact, evidence: bytes, time: str) -> Version:
        """Copy an artifact and its evidence into the registry, verified. No alias is moved.

        Proposing a version again keeps its ``created``; its next promotion is recorded with the latest evidence.
        """

    def promote(self, model: str, alias: str, digest: str, *, expected: str | None, actor: str, time: str) -> Promotion:
        """Point ``alias`` at a proposed version, if it still points at ``expected``; else ``StalePromotion``.

        The version's bytes are verified first, and an export that has expired is refused. Promoting the version that
        the alias points at changes nothing.
        """

    def roll_back(self, model: str, alias: str, *, actor: str, time: str) -> Promotion:
        """Undo the last promotion of ``alias`` that is in force (``promotions_in_force``); again goes further back.

        The bytes of the version before are verified first, and an export that has expired is refused. The move is
        recorded with the evidence that this version was promoted with.
        """

    def current(self, model: str, alias: str) -> Version | None:
        """Return the version that ``alias`` points at, with the evidence it was promoted with.

        Like the other methods that only read, it works on a read-only or a full disk.
        """

    def record_evidence(self, digest: str, time: str) -> None:
        """Record the digest of evidence that a run made. No alias is moved. Recording it again changes nothing."""

    def has_evidence(self, digest: str) -> bool:
        """Return whether evidence was recorded, so that ``deploycheck promote`` may use it."""

    def history(self, model: str | None = None) -> tuple[Promotion, ...]:
        """Return the moves, oldest first: of one model, or all."""

    def verify(self) -> tuple[str, ...]:
        """Check the history's hashes, and the bytes and evidence of every version that was ever promoted.

        Returns what is wrong, one sentence each.
        """
