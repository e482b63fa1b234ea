"""The embedded registry: one sqlite file, with the artifacts and the evidence in folders beside it.

Files are copied and verified before the transaction that moves an alias. A process killed at any point leaves the
alias at its old or its new version, and all files of that version in place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from deploycheck.errors import DeploycheckError, located
from deploycheck.lazy import sqlite3
from deploycheck.registry.database import create, insert, read_evidence, read_moves, reading, writing
from deploycheck.registry.files import RegistryFiles
from deploycheck.registry.ledger import (
    Entry,
    EvidenceEntry,
    Promotion,
    RegistryError,
    StalePromotion,
    Version,
    chain_problems,
    check_chain,
    check_clock,
    find_expiry,
    moves_of,
    next_entry,
    promotions_in_force,
)
from deploycheck.registry.scheme import RegistryScheme
from deploycheck.store import (
    Artifact,
    CorruptArtifact,
    flush,
)

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SETTING = "promote.registry"

_HEADER = b"SQLite format 3\0"
"""With which a database begins (sqlite.org/fileformat.html); an empty file is an empty database."""


def open_sqlite(location: str, root: Path) -> SqliteRegistry:
    """Open the registry at ``location``, a file under ``root``; no file is made before something is proposed.

    Raises ``RegistryError`` where it, or a folder that belongs to it, is outside of ``root``.
    """
    if not location.isprintable() or not Path(location).name:
        hint = "give one, as in sqlite:registry.db"
        raise RegistryError(f"{location!r} is not the path of a file", where=_SETTING, hint=hint)
    registry = SqliteRegistry((root / location).resolve())
    for path in (registry.path, registry.files.artifacts, registry.files.evidence, registry.files.partial):
        if not path.resolve().is_relative_to(root.resolve()):
            raise RegistryError(
                f"{path} is outside of {root}", where=_SETTING, hint="give a path inside of that folder"
            )
    return registry


def check_sqlite(location: str, root: Path) -> None:
    """Raise ``RegistryError`` for a location where no registry can be: outside of ``root``, or another file's."""
    path = open_sqlite(location, root).path
    taken = next((parent for parent in path.parents if parent.exists() and not parent.is_dir()), None)
    if taken:
        raise RegistryError(f"{taken} is a file, expected a folder", where=_SETTING, hint="give another path")
    if path.is_dir():
        raise RegistryError(f"{location} is a folder, expected a file", where=_SETTING, hint="give a file in it")
    if not path.exists():
        return
    if not path.is_file():
        raise RegistryError(f"{location} is not a file", where=_SETTING, hint="give another path")
    with path.open("rb") as file:
        begins = file.read(len(_HEADER))
    if begins and begins != _HEADER:
        raise RegistryError(
            f"{location} exists, and is not an SQLite database", where=_SETTING, hint="give another path"
        )


class SqliteRegistry:
    """See ``Registry`` for what each method promises."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = RegistryFiles(path)

    def propose(self, model: str, artifact: Artifact, evidence: bytes, time: str) -> Version:
        """Copy the artifact and its evidence into the registry, and record them as a version."""
        _check_names(model)
        with self._copying():
            self.files.copy(artifact)
            evidence_digest = self.files.write_evidence(evidence)
        with self._writing() as (database, _):
            database.execute(
                "INSERT INTO versions (model, digest, evidence_digest, created) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET evidence_digest = excluded.evidence_digest",
                (model, artifact.digest, evidence_digest, time),
            )
            return self._read_version(database, model, artifact.digest)

    def promote(self, model: str, alias: str, digest: str, *, expected: str | None, actor: str, time: str) -> Promotion:
        """Move the alias, if it still points at ``expected``."""
        _check_names(model, alias)
        with self._writing() as (database, history):
            version = self._read_version(database, model, digest)
            moves = moves_of(history, model, alias)
            artifact = self._open(digest, moves, time)
            latest = moves[-1] if moves else None
            now = latest.to_digest if latest else None
            if latest and now == digest:
                return latest
            if now != expected:
                by = f", moved there by {latest.actor} at {latest.time}" if latest else ""
                raise StalePromotion(
                    f"{alias} points at {now}, expected {expected}{by}",
                    where=f"{self.path}: {model}",
                    hint="run the gate again, against the version that it points at now",
                )
            self._check_loadable(artifact, moves, time)
            return self._move(database, history, version, alias, actor, time, "promote")

    def roll_back(self, model: str, alias: str, *, actor: str, time: str) -> Promotion:
        """Move the alias to the version before the current one."""
        _check_names(model, alias)
        with self._writing() as (database, history):
            moves = moves_of(history, model, alias)
            in_force = promotions_in_force(moves)
            if len(in_force) < 2:
                state = "points at its first version" if in_force else "was never promoted"
                raise RegistryError(f"{alias} {state}: there is nothing to go back to", where=f"{self.path}: {model}")
            before = in_force[-2]
            others = in_force[:-1]
            self._check_loadable(self._open(before.to_digest, others, time), others, time)
            version = self._read_promoted(database, before)
            return self._move(database, history, version, alias, actor, time, "roll_back")

    def current(self, model: str, alias: str) -> Version | None:
        """Return the version that the alias points at."""
        _check_names(model, alias)
        if not self.path.exists():
            return None
        with reading(self.path) as database:
            moves = moves_of(self._read_history(database), model, alias)
            return self._read_promoted(database, moves[-1]) if moves else None

    def record_evidence(self, digest: str, time: str) -> None:
        """Append the digest to the recorded evidence; make the registry where there is none."""
        with self._copying(), self._writing() as (database, history):
            recorded = self._read_evidence(database)
            if digest not in {entry.digest for entry in recorded}:
                seq, previous = next_entry(recorded)
                entry = EvidenceEntry(seq=seq, digest=digest, time=time, previous_hash=previous, hash="")
                self._append(database, replace(entry, hash=entry.compute_hash()), history, recorded)

    def has_evidence(self, digest: str) -> bool:
        """Look the digest up among the recorded evidence."""
        if not self.path.exists():
            return False
        with reading(self.path) as database:
            return digest in {entry.digest for entry in self._read_evidence(database)}

    def history(self, model: str | None = None) -> tuple[Promotion, ...]:
        """Return the moves, oldest first."""
        if not self.path.exists():
            return ()
        with reading(self.path) as database:
            moves = read_moves(database)
        return tuple(move for move in moves if model is None or move.model == model)

    def verify(self) -> tuple[str, ...]:
        """Check the history, and the bytes and evidence of every version that was ever promoted."""
        moves, entries = self.history(), self._all_evidence()
        problems = [*chain_problems(moves), *chain_problems(entries)]
        for digest in sorted({move.to_digest for move in moves}):
            try:
                self.files.open(digest)
            except DeploycheckError as error:
                problems.append(str(error))
        for digest in sorted({move.evidence_digest for move in moves}):
            problems.extend(self.files.evidence_problems(digest))
        return tuple(problems)

    def _move(
        self,
        database: sqlite3.Connection,
        history: Sequence[Promotion],
        version: Version,
        alias: str,
        actor: str,
        time: str,
        reason: Literal["promote", "roll_back"],
    ) -> Promotion:
        seq, previous = next_entry(history)
        moves = moves_of(history, version.model, alias)
        move = Promotion(
            seq=seq,
            model=version.model,
            alias=alias,
            from_digest=moves[-1].to_digest if moves else None,
            to_digest=version.digest,
            evidence_digest=version.evidence_digest,
            actor=actor,
            time=time,
            reason=reason,
            previous_hash=previous,
            hash="",
        )
        move = replace(move, hash=move.compute_hash())
        self._append(database, move, history, self._read_evidence(database))
        return move

    def _append(
        self,
        database: sqlite3.Connection,
        entry: Entry,
        history: Sequence[Promotion],
        recorded: Sequence[EvidenceEntry],
    ) -> None:
        """Add an entry, unless the clock is behind the newest one."""
        newest = max([move.time for move in history[-1:]] + [last.time for last in recorded[-1:]], default=None)
        with located(str(self.path)):
            check_clock(entry.time, newest)
        insert(database, "promotions" if isinstance(entry, Promotion) else "evidence", vars(entry))

    def _open(self, digest: str, moves: Sequence[Promotion], time: str) -> Artifact:
        """Return the registry's verified copy; the error for a damaged one names a version of the alias that loads."""
        try:
            return self.files.open(digest)
        except CorruptArtifact as error:
            error.hint = "; ".join(filter(None, (error.hint, self._newest_loadable(moves, time))))
            raise

    def _check_loadable(self, artifact: Artifact, moves: Sequence[Promotion], time: str) -> None:
        """Raise ``RegistryError`` where an export has expired; name the newest version of the alias that has not."""
        expired = find_expiry(artifact, time)
        if expired:
            raise RegistryError(
                f"the alias can't point at {artifact.digest}, which could be loaded until {expired.isoformat()}",
                where=str(self.path),
                hint="run the gate of that model again, which exports it again, and promote it; "
                + self._newest_loadable(moves, time),
            )

    def _newest_loadable(self, moves: Sequence[Promotion], time: str) -> str:
        digests = dict.fromkeys(move.to_digest for move in reversed(moves))
        newest = next((digest for digest in digests if self._loads(digest, time)), None)
        if newest is None:
            return "no earlier version of the alias can be loaded any more"
        return f"the newest other version that can be loaded is {newest}"

    def _loads(self, digest: str, time: str) -> bool:
        try:
            return find_expiry(self.files.open(digest), time) is None
        except DeploycheckError:
            return False

    def _read_history(self, database: sqlite3.Connection) -> tuple[Promotion, ...]:
        """Read all moves; raise ``RegistryError`` where their hashes don't fit."""
        moves = read_moves(database)
        check_chain(moves, str(self.path))
        return moves

    def _read_evidence(self, database: sqlite3.Connection) -> tuple[EvidenceEntry, ...]:
        """Read all recorded evidence; raise ``RegistryError`` where the hashes don't fit."""
        entries = read_evidence(database)
        check_chain(entries, str(self.path))
        return entries

    def _all_evidence(self) -> tuple[EvidenceEntry, ...]:
        if not self.path.exists():
            return ()
        with reading(self.path) as database:
            return read_evidence(database)

    def _read_promoted(self, database: sqlite3.Connection, move: Promotion) -> Version:
        """Return the version that a move went to, with the evidence of that move."""
        version = self._read_version(database, move.model, move.to_digest)
        return replace(version, evidence_digest=move.evidence_digest)

    def _read_version(self, database: sqlite3.Connection, model: str, digest: str) -> Version:
        row = database.execute(
            "SELECT evidence_digest, created FROM versions WHERE model = ? AND digest = ?", (model, digest)
        ).fetchone()
        if row is None:
            raise RegistryError(f"{digest} was never proposed for {model}", where=str(self.path))
        evidence_digest, created = row
        return Version(
            model=model,
            digest=digest,
            evidence_digest=evidence_digest,
            path=self.files.artifact_path(digest),
            created=created,
        )

    @contextmanager
    def _copying(self) -> Iterator[None]:
        """Hold the lock of those that copy files into the registry, and make the registry where there is none."""
        with self.files.copying():
            if not self.path.exists():
                self._create()
            yield

    def _create(self) -> None:
        """Make the database, whole or not at all.

        Two processes that opened an empty file would not wait for each other: sqlite's busy timeout doesn't apply to
        the change to write-ahead logging.
        """
        partial = self.files.partial / "database"
        create(partial)
        flush(partial)
        partial.rename(self.path)
        flush(self.path.parent)

    @contextmanager
    def _writing(self) -> Iterator[tuple[sqlite3.Connection, tuple[Promotion, ...]]]:
        """Hold the write lock; give the database, and the whole history, whose hashes fit."""
        if not self.path.exists():
            raise RegistryError("there is no registry: nothing was ever proposed", where=str(self.path))
        with writing(self.path) as database:
            yield database, self._read_history(database)


def _check_names(*names: str) -> None:
    for name in names:
        if not NAME.fullmatch(name):
            hint = "small letters, digits, '.', '_' and '-', at most 64"
            raise RegistryError(f"{name!r} is not a name for a model or an alias", hint=hint)


SQLITE = RegistryScheme("sqlite", open_sqlite, check_sqlite)
