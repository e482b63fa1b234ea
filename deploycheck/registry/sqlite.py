"""The embedded registry: one sqlite file, with the artifacts and the evidence in folders beside it.

Beside ``NAME.db``::

    NAME.artifacts/<digest>/        the registry's own copy of each proposed artifact
    NAME.evidence/<digest>.json     the evidence of each proposal
    NAME.partial/                   what is being copied in
    NAME.lock                       held by the process that copies

Files are copied and verified before the transaction that moves an alias, so that a process killed at any
point leaves the alias where it was or where it was going, with all that it points at in place.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal

from filelock import FileLock

from deploycheck.errors import DeploycheckError
from deploycheck.registry.ledger import (
    GENESIS,
    Promotion,
    RegistryError,
    StalePromotion,
    Version,
    chain_problems,
    way_back,
)
from deploycheck.store import (
    MANIFEST,
    Artifact,
    CorruptArtifact,
    explained,
    flush,
    flush_tree,
    open_artifact,
)

SCHEMA_VERSION = 1
BUSY_SECONDS = 30
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SETTING = "promote.registry"

_SCHEMA = (
    """CREATE TABLE versions (
        model TEXT NOT NULL, digest TEXT NOT NULL, evidence_digest TEXT NOT NULL, created TEXT NOT NULL,
        PRIMARY KEY (model, digest)
    ) STRICT""",
    """CREATE TABLE promotions (
        seq INTEGER PRIMARY KEY, model TEXT NOT NULL, alias TEXT NOT NULL, from_digest TEXT,
        to_digest TEXT NOT NULL, evidence_digest TEXT NOT NULL, actor TEXT NOT NULL, time TEXT NOT NULL,
        reason TEXT NOT NULL, previous_hash TEXT NOT NULL, hash TEXT NOT NULL UNIQUE,
        FOREIGN KEY (model, to_digest) REFERENCES versions (model, digest)
    ) STRICT""",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_COLUMNS = ", ".join(field.name for field in fields(Promotion))


def open_sqlite(location: str, root: Path) -> SqliteRegistry:
    """Open the registry at ``location``, a file under ``root``; nothing is made before something is proposed.

    Raises ``RegistryError`` where it, or a folder that belongs to it, lies outside of ``root``.
    """
    if not location.isprintable() or not Path(location).name:
        hint = "give one, as in sqlite:registry.db"
        raise RegistryError(f"{location!r} is no path of a file", where=_SETTING, hint=hint)
    registry = SqliteRegistry((root / location).resolve())
    for path in (registry.path, registry.artifacts, registry.evidence, registry.partial):
        if not path.resolve().is_relative_to(root.resolve()):
            raise RegistryError(
                f"{path} lies outside of {root}", where=_SETTING, hint="give a path inside of that folder"
            )
    return registry


class SqliteRegistry:
    """See ``Registry`` for what each method promises."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.artifacts = path.with_name(f"{path.stem}.artifacts")
        self.evidence = path.with_name(f"{path.stem}.evidence")
        self.partial = path.with_name(f"{path.stem}.partial")
        self.lock = path.with_name(f"{path.stem}.lock")

    def propose(self, model: str, artifact: Artifact, evidence: bytes, time: str) -> Version:
        """Copy the artifact and its evidence in, and record them as a version."""
        _check_names(model)
        with self._copying():
            self._copy(artifact)
            evidence_digest = self._keep(evidence)
        with self._transaction() as database:
            database.execute(
                "INSERT INTO versions (model, digest, evidence_digest, created) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET evidence_digest = excluded.evidence_digest",
                (model, artifact.digest, evidence_digest, time),
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
                    f"{alias} stands at {now}, expected {expected}{by}",
                    where=f"{self.path}: {model}",
                    hint="run the gate again, against what stands there now",
                )
            return self._move(database, version, alias, now, actor, time, "promote")

    def roll_back(self, model: str, alias: str, *, actor: str, time: str) -> Promotion:
        """Move the alias to the version before the current one."""
        _check_names(model, alias)
        with self._transaction() as database:
            standing = way_back(self._moves(database, "WHERE model = ? AND alias = ?", model, alias))
            if len(standing) < 2:
                state = "stands at its first version" if standing else "was never promoted"
                raise RegistryError(f"{alias} {state}: there is nothing to go back to", where=f"{self.path}: {model}")
            current, before = standing[-1], standing[-2]
            self._verify_bytes(before.to_digest)
            version = self._promoted(database, before)
            return self._move(database, version, alias, current.to_digest, actor, time, "roll_back")

    def current(self, model: str, alias: str) -> Version | None:
        """Return the version that the alias points at."""
        _check_names(model, alias)
        if not self.path.exists():
            return None
        with self._transaction() as database:
            latest = self._latest(database, model, alias)
            return self._promoted(database, latest) if latest else None

    def history(self, model: str | None = None) -> tuple[Promotion, ...]:
        """Return the moves, oldest first."""
        if not self.path.exists():
            return ()
        with self._transaction() as database:
            return self._moves(database, "WHERE ? IS NULL OR model = ?", model, model)

    def verify(self) -> tuple[str, ...]:
        """Check the history, and the bytes and evidence of all that was ever promoted."""
        moves = self.history()
        problems = chain_problems(moves)
        for digest in sorted({move.to_digest for move in moves}):
            try:
                self._verify_bytes(digest)
            except DeploycheckError as error:
                problems.append(str(error))
        for digest in sorted({move.evidence_digest for move in moves}):
            problems.extend(self._evidence_problems(digest))
        return tuple(problems)

    def _move(
        self,
        database: sqlite3.Connection,
        version: Version,
        alias: str,
        now: str | None,
        actor: str,
        time: str,
        reason: Literal["promote", "roll_back"],
    ) -> Promotion:
        last = self._moves(database, "", latest=True)
        seq, previous = (last[0].seq + 1, last[0].hash) if last else (1, GENESIS)
        move = Promotion(
            seq=seq, model=version.model, alias=alias, from_digest=now, to_digest=version.digest,
            evidence_digest=version.evidence_digest, actor=actor, time=time, reason=reason,
            previous_hash=previous, hash="",
        )  # fmt: skip
        move = replace(move, hash=move.computed_hash())
        values = tuple(getattr(move, field.name) for field in fields(Promotion))
        places = ", ".join("?" * len(values))
        database.execute(f"INSERT INTO promotions ({_COLUMNS}) VALUES ({places})", values)  # noqa: S608
        return move

    def _moves(
        self, database: sqlite3.Connection, where: str, *values: str | None, latest: bool = False
    ) -> tuple[Promotion, ...]:
        order = "ORDER BY seq DESC LIMIT 1" if latest else "ORDER BY seq"
        rows = database.execute(f"SELECT {_COLUMNS} FROM promotions {where} {order}", values)  # noqa: S608
        return tuple(Promotion(*row) for row in rows)

    def _latest(self, database: sqlite3.Connection, model: str, alias: str) -> Promotion | None:
        moves = self._moves(database, "WHERE model = ? AND alias = ?", model, alias, latest=True)
        return moves[0] if moves else None

    def _promoted(self, database: sqlite3.Connection, move: Promotion) -> Version:
        """Return the version that a move went to, with the evidence of that move."""
        version = self._version(database, move.model, move.to_digest)
        return replace(version, evidence_digest=move.evidence_digest)

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

    @contextmanager
    def _copying(self) -> Iterator[None]:
        """Hold the right to copy files in, and have a registry to copy them into."""
        with explained(self.path.parent):
            for folder in (self.artifacts, self.evidence):
                folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.lock):
                shutil.rmtree(self.partial, ignore_errors=True)  # left by a process that was killed
                self.partial.mkdir()
                try:
                    if not self.path.exists():
                        self._create()
                    yield
                finally:
                    shutil.rmtree(self.partial, ignore_errors=True)

    def _create(self) -> None:
        """Make the database, whole or not at all.

        Processes that met at an empty file would not wait for each other: sqlite's busy timeout doesn't hold
        for the change to write-ahead logging.
        """
        partial = self.partial / "database"
        with self._connected(partial) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                database.execute(statement)
            database.execute("COMMIT")
        flush(partial)
        partial.rename(self.path)
        flush(self.path.parent)

    def _copy(self, artifact: Artifact) -> None:
        """Copy the artifact in under its digest, whole or not at all; what is there already is verified."""
        final, partial = self._artifact_path(artifact.digest), self.partial / "artifact"
        if final.exists():
            self._verify_bytes(artifact.digest)
            return
        for name in (*artifact.files, MANIFEST):
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(artifact.path / name, partial / name)
        flush_tree(partial)
        if open_artifact(partial).digest != artifact.digest:
            raise CorruptArtifact("it changed while it was copied", where=str(artifact.path))
        partial.rename(final)
        flush(self.artifacts)

    def _keep(self, evidence: bytes) -> str:
        """Write the evidence down under its digest; return that."""
        digest = f"sha256:{hashlib.sha256(evidence).hexdigest()}"
        partial = self.partial / "evidence"
        partial.write_bytes(evidence)
        flush(partial)
        partial.rename(self._evidence_path(digest))
        flush(self.evidence)
        return digest

    def _evidence_path(self, digest: str) -> Path:
        return self.evidence / f"{digest.removeprefix('sha256:')}.json"

    def _evidence_problems(self, digest: str) -> Iterator[str]:
        path = self._evidence_path(digest)
        try:
            found = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        except OSError as error:
            yield f"{path}: the evidence can't be read: {error.strerror}"
            return
        if found != digest:
            yield f"{path}: the evidence was changed: expected {digest}, found {found}"

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the database's write lock: all of the block happens, or none of it."""
        if not self.path.exists():
            raise RegistryError("there is no registry: nothing was ever proposed", where=str(self.path))
        with self._connected(self.path) as database:
            database.execute("PRAGMA synchronous = FULL")
            database.execute("PRAGMA foreign_keys = ON")
            database.execute("BEGIN IMMEDIATE")
            try:
                self._check_schema(database)
                yield database
            except BaseException:
                if database.in_transaction:  # where the disk is full, sqlite has undone it already
                    database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")

    @contextmanager
    def _connected(self, path: Path) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as database:
                yield database
        except sqlite3.Error as error:
            hint = "is it a registry, can it be written, and does no other program hold it?"
            raise RegistryError(f"sqlite says: {error}", where=str(self.path), hint=hint) from error

    def _check_schema(self, database: sqlite3.Connection) -> None:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version != SCHEMA_VERSION:
            raise RegistryError(
                f"it has schema {version}, expected {SCHEMA_VERSION}",
                where=str(self.path),
                hint="it is another program's file, or another version's: name another one",
            )


def _check_names(*names: str) -> None:
    for name in names:
        if not NAME.fullmatch(name):
            hint = "small letters, digits, '.', '_' and '-', at most 64"
            raise RegistryError(f"{name!r} is no name for a model or an alias", hint=hint)
