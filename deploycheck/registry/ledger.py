"""What every registry keeps, and what it promises."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Protocol

from deploycheck.errors import DeploycheckError
from deploycheck.store import Artifact

GENESIS = "0" * 64
"""What the first move's ``previous_hash`` is."""


class RegistryError(DeploycheckError):
    """The registry can't do what was asked; nothing was changed."""


class StalePromotion(RegistryError):
    """Someone else moved the alias since it was looked at; nothing was changed."""


@dataclass(frozen=True)
class Version:
    """A model's artifact in the registry, with the evidence it was proposed on.

    ``digest`` and ``evidence_digest`` are ``sha256:`` and 64 hex digits; ``path`` is the registry's own copy.
    """

    model: str
    digest: str
    evidence_digest: str
    path: Path
    created: str


@dataclass(frozen=True)
class Promotion:
    """One move of an alias. Each holds the hash of the one before: a changed history doesn't add up."""

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

    def computed_hash(self) -> str:
        """Return the hash that this move's content should have."""
        content = {name: value for name, value in asdict(self).items() if name != "hash"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def chain_problems(moves: Iterable[Promotion]) -> list[str]:
    """Return what is wrong with a whole history, oldest move first: moves changed, missing or put in.

    Moves cut off at its end leave a history that adds up: that can't be told from the history alone.
    """
    problems = []
    previous, expected = GENESIS, 1
    for move in moves:
        if move.hash != move.computed_hash():
            problems.append(f"promotion {move.seq} of {move.model} was changed after it was written")
        if move.seq != expected:
            problems.append(f"promotion {expected} is missing from the history")
        elif move.previous_hash != previous:
            problems.append(f"promotion {move.seq} of {move.model} doesn't follow the one before it")
        previous, expected = move.hash, move.seq + 1
    return problems


def way_back(moves: Sequence[Promotion]) -> list[Promotion]:
    """Return the promotions that an alias stands on, oldest first: rolling back undoes the last one.

    ``moves`` are all of one alias, oldest first. Raises ``RegistryError`` where they undo more than was done.
    """
    standing: list[Promotion] = []
    for move in moves:
        if move.reason == "promote":
            standing.append(move)
        elif standing:
            standing.pop()
    if moves and (not standing or standing[-1].to_digest != moves[-1].to_digest):
        raise RegistryError(
            "the history doesn't add up: it doesn't lead to where the alias stands",
            where=f"{moves[-1].model} {moves[-1].alias}",
            hint="verify the registry, and restore it from a copy",
        )
    return standing


class Registry(Protocol):
    """A registry of promoted models. Times are ISO 8601 in UTC.

    Names of models and aliases are ``[a-z0-9][a-z0-9._-]{0,63}``. Every method raises ``RegistryError`` where
    the registry can't be used, ``CorruptArtifact`` where the bytes it would point at are damaged.
    """

    def propose(self, model: str, artifact: Artifact, evidence: bytes, time: str) -> Version:
        """Copy an artifact and its evidence in, verified. No alias is moved.

        Proposing a version again keeps its ``created``; what is promoted next stands on the latest evidence.
        """

    def promote(self, model: str, alias: str, digest: str, *, expected: str | None, actor: str, time: str) -> Promotion:
        """Point ``alias`` at a proposed version, if it still points at ``expected``; else ``StalePromotion``.

        The version's bytes are verified first. Promoting what stands there already changes nothing.
        """

    def roll_back(self, model: str, alias: str, *, actor: str, time: str) -> Promotion:
        """Undo the promotion that ``alias`` stands on, as ``way_back`` has them; again goes further back.

        The bytes it goes back to are verified first; it then stands on the evidence they were promoted on.
        """

    def current(self, model: str, alias: str) -> Version | None:
        """Return the version that ``alias`` points at, with the evidence it was promoted on."""

    def history(self, model: str | None = None) -> tuple[Promotion, ...]:
        """Return the moves, oldest first: of one model, or all."""

    def verify(self) -> tuple[str, ...]:
        """Check the history's hashes, and the bytes and evidence of all that was ever promoted.

        Returns what is wrong, in words that name it.
        """
