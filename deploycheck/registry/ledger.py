"""What every registry keeps, and what it promises."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Protocol

from deploycheck.errors import DeploycheckError
from deploycheck.store import Artifact


class RegistryError(DeploycheckError):
    """The registry can't do what was asked; nothing was changed."""


class StalePromotion(RegistryError):
    """Someone else moved the alias since it was looked at; nothing was changed."""


@dataclass(frozen=True)
class Version:
    """A model's artifact in the registry, with the evidence it was proposed on."""

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


class Registry(Protocol):
    """A registry of promoted models. Times are ISO 8601 in UTC."""

    def propose(self, model: str, artifact: Artifact, evidence: bytes, time: str) -> Version:
        """Copy a verified artifact and its evidence in. It stands nowhere yet. Proposing again changes nothing."""

    def promote(self, model: str, alias: str, digest: str, *, expected: str | None, actor: str, time: str) -> Promotion:
        """Point ``alias`` at a proposed version, if it still points at ``expected``; else ``StalePromotion``.

        The version's bytes are verified first. Promoting what stands there already changes nothing.
        """

    def roll_back(self, model: str, alias: str, *, actor: str, time: str) -> Promotion:
        """Point ``alias`` at what stood there before the current version; again goes further back."""

    def current(self, model: str, alias: str) -> Version | None:
        """Return the version that ``alias`` points at."""

    def history(self, model: str | None = None) -> tuple[Promotion, ...]:
        """Return the moves, oldest first: of one model, or all."""

    def verify(self) -> tuple[str, ...]:
        """Check the history's hashes and every promoted version's bytes; return what is wrong, in words."""
