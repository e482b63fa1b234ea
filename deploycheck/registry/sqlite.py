"""The embedded registry: one sqlite file, with the artifacts and the evidence in folders beside it.

The files are copied and verified before the transaction that moves an alias, so that a process that is killed at
any point leaves the alias where it was or where it was going, with all that it points at in place.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal

from deploycheck.registry.ledger import Promotion, RegistryError, StalePromotion, Version
from deploycheck.store import Artifact, CorruptArtifact, explained, flush, open_artifact

SCHEMA_VERSION = 1
BUSY_SECONDS = 30
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
GENESIS = "0" * 64

_SCHEMA = f"""
CREATE TABLE versions (
    model TEXT NOT NULL, digest TEXT NOT NULL, evidence_digest TEXT NOT NULL, created TEXT NOT NULL,
    PRIMARY KEY (model, digest)
) STRICT;
CREATE TABLE promotions (
    seq INTEGER PRIMARY KEY, model TEXT NOT NULL, alias TEXT NOT NULL, from_digest TEXT, to_digest TEXT NOT NULL,
    evidence_digest TEXT NOT NULL, actor TEXT NOT NULL, time TEXT NOT NULL, reason TEXT NOT NULL,
    previous_hash TEXT NOT NULL, hash TEXT NOT NULL UNIQUE,
    FOREIGN KEY (model, to_digest) REFERENCES versions (model, digest)
) STRICT;
PRAGMA user_version = {SCHEMA_VERSION};
"""
_COLUMNS = ", ".join(field.name for field in fields(Promotion))


def open_sqlite(location: str, root: Path) -> SqliteRegistry:
    """Open the registry at ``location``, a file under ``root``."""
    path = (root / location).resolve()
    if not location or not path.is_relative_to(root.resolve()):
        raise RegistryError(f"{location!r} lies outside of {root}", where="promote.registry", hint="give a path inside the project")
    return SqliteRegistry(path)


class SqliteRegistry:
    """See ``Registry`` for what each method promises."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.artifacts = path.with_name(f"{path.stem}.artifacts")
        self.evidence = path.with_name(f"{path.stem}.evidence")

    def propose(self, model: str, artifact: Artifact, evidence: bytes, time: str) -> Version:
        """Copy the artifact and its evidence in, and record them as a version."""
        _check_names(model)
        with explained(self.path.parent):
            self._copy(artifact)
            evidence_digest = self._keep(evidence)
        with self._transaction() as database:
            database.execute(
                "INSERT INTO versions VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET evidence_digest = ?, created = ? "
                "WHERE NOT EXISTS (SELECT 1 FROM promotions p WHERE p.model = versions.model AND p.to_digest = versions.digest)",
                (model, artifact.digest, evidence_digest, time, evidence_digest, time),
            )
            return self._version(database, model, artifact.digest)

    def promote(self, model: str, alias: str, digest: str, *, expected: str | None, actor: str, time: str) -> Promotion:
        """Move the alias, if it still stands at ``expected``."""
        _check_names(model, alias)
        with self._transaction() as database:
            version = self._version(database, model, digest)
            self._verify_bytes(digest)
            latest = self._latest(database, model, alias)
            now = latest.to_digest if latest else None
            if latest and now == digest:
                return latest
            if now != expected:
                by = f", moved there by {latest.actor} at {latest.time}" if latest else ""
                raise StalePromotion(
                    f"{alias} stands at {now}, expected {expected}{by}", where=f"{self.path}: {model}",
                    hint="run the gate again, against what stands there now",
                )  # fmt: skip
            return self._move(database, model, alias, now, version, actor, time, "promote")

    def roll_back(self, model: str, alias: str, *, actor: str, time: str) -> Promotion:
        """Move the alias to the version before the current one."""
        _check_names(model, alias)
        with self._transaction() as database:
            stack: list[str] = []
            for move in self._moves(database, "WHERE model = ? AND alias = ?", (model, alias)):
                if move.reason == "roll_back":
                    stack.pop()
                else:
                    stack.append(move.to_digest)
            if len(stack) < 2:
                state = "stands at its first version" if stack else "was never promoted"
                raise RegistryError(f"{alias} {state}: there is nothing to go back to", where=f"{self.path}: {model}")
            current, before = stack[-1], stack[-2]
            self._verify_bytes(before)
            version = self._version(database, model, before)
            return self._move(database, model, alias, current, version, actor, time, "roll_back")

    def current(self, model: str, alias: str) -> Version | None:
        """Return the version that the alias points at."""
        _check_names(model, alias)
        if not self.path.exists():
            return None
        with self._transaction() as database:
            latest = self._latest(database, model, alias)
            return self._version(database, model, latest.to_digest) if latest else None

    def history(self, model: str | None = None) -> tuple[Promotion, ...]:
        """Return the moves, oldest first."""
        if not self.path.exists():
            return ()
        with self._transaction() as database:
            return self._moves(database, "WHERE ? IS NULL OR model = ?", (model, model))

    def verify(self) -> tuple[str, ...]:
        """Check the history's hashes and every promoted version's bytes."""
        problems = []
        previous, number = GENESIS, 0
        moves = self.history()
        for move in moves:
            number += 1
            if move.seq != number:
                problems.append(f"promotion {number} is missing from the history")
                number = move.seq
            if move.previous_hash != previous or move.hash != move.computed_hash():
                problems.append(f"promotion {move.seq} of {move.model} was changed after it was written")
            previous = move.hash
        for digest in sorted({move.to_digest for move in moves}):
            try:
                self._verify_bytes(digest)
            except CorruptArtifact as error:
                problems.append(str(error))
        return tuple(problems)

    def _move(
        self,
        database: sqlite3.Connection,
        model: str,
        alias: str,
        now: str | None,
        version: Version,
        actor: str,
        time: str,
        reason: Literal["promote", "roll_back"],
    ) -> Promotion:
        last = self._moves(database, "ORDER BY seq DESC LIMIT 1", ())
        seq, previous = (last[0].seq + 1, last[0].hash) if last else (1, GENESIS)
        move = Promotion(
            seq, model, alias, now, version.digest, version.evidence_digest, actor, time, reason, previous, hash=""
        )
        move = replace(move, hash=move.computed_hash())
        values = [getattr(move, field.name) for field in fields(Promotion)]
        database.execute(f"INSERT INTO promotions ({_COLUMNS}) VALUES ({', '.join('?' * len(values))})", values)  # noqa: S608
        return move

    def _moves(self, database: sqlite3.Connection, where: str, values: tuple[str | None, ...]) -> tuple[Promotion, ...]:
        order = "" if "ORDER" in where else " ORDER BY seq"
        rows = database.execute(f"SELECT {_COLUMNS} FROM promotions {where}{order}", values)  # noqa: S608
        return tuple(Promotion(*row) for row in rows)

    def _latest(self, database: sqlite3.Connection, model: str, alias: str) -> Promotion | None:
        moves = self._moves(database, "WHERE model = ? AND alias = ? ORDER BY seq DESC LIMIT 1", (model, alias))
        return moves[0] if moves else None

    def _version(self, database: sqlite3.Connection, model: str, digest: str) -> Version:
        row = database.execute(
            "SELECT evidence_digest, created FROM versions WHERE model = ? AND digest = ?", (model, digest)
        ).fetchone()
        if row is None:
            raise RegistryError(f"{digest} was never proposed for {model}", where=str(self.path))
        return Version(model, digest, row[0], self._artifact_path(digest), row[1])

    def _artifact_path(self, digest: str) -> Path:
        return self.artifacts / digest.removeprefix("sha256:")

    def _verify_bytes(self, digest: str) -> Artifact:
        path = self._artifact_path(digest)
        artifact = open_artifact(path)
        if artifact.digest != digest:
            raise CorruptArtifact(f"it is {artifact.digest}, expected {digest}", where=str(path))
        return artifact

    def _copy(self, artifact: Artifact) -> None:
        """Copy the artifact in under its digest, whole or not at all; what is there already is verified."""
        final = self._artifact_path(artifact.digest)
        if final.exists():
            self._verify_bytes(artifact.digest)
            return
        self.artifacts.mkdir(parents=True, exist_ok=True)
        partial = self.artifacts / f".partial-{uuid.uuid4().hex}"
        try:
            shutil.copytree(artifact.path, partial)
            if open_artifact(partial).digest != artifact.digest:
                raise CorruptArtifact("it changed while it was copied", where=str(artifact.path))
            for folder, _, names in os.walk(partial):
                for name in names:
                    flush(Path(folder) / name)
            try:
                partial.rename(final)
            except OSError:  # another process was first
                self._verify_bytes(artifact.digest)
            flush(self.artifacts)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _keep(self, evidence: bytes) -> str:
        digest = hashlib.sha256(evidence).hexdigest()
        self.evidence.mkdir(parents=True, exist_ok=True)
        final = self.evidence / f"{digest}.json"
        partial = self.evidence / f".partial-{uuid.uuid4().hex}"
        partial.write_bytes(evidence)
        flush(partial)
        partial.replace(final)
        flush(self.evidence)
        return f"sha256:{digest}"

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Open the database and hold its write lock: all of the block happens, or none of it."""
        try:
            with explained(self.path.parent):
                self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)) as database:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                database.execute("PRAGMA foreign_keys = ON")
                database.execute("BEGIN IMMEDIATE")
                try:
                    self._migrate(database)
                    yield database
                except BaseException:
                    database.execute("ROLLBACK")
                    raise
                database.execute("COMMIT")
        except sqlite3.Error as error:
            hint = "is it a registry, can it be written, and does no other program hold it?"
            raise RegistryError(f"sqlite says: {error}", where=str(self.path), hint=hint) from error

    def _migrate(self, database: sqlite3.Connection) -> None:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                database.execute(statement)
        elif version != SCHEMA_VERSION:
            raise RegistryError(f"it has schema {version}, this version reads {SCHEMA_VERSION}", where=str(self.path))


def _check_names(*names: str) -> None:
    for name in names:
        if not NAME.fullmatch(name):
            hint = "small letters, digits, '.', '_' and '-', at most 64"
            raise RegistryError(f"{name!r} is no name for a model or an alias", hint=hint)
