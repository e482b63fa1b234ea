"""The registry's sqlite file: its tables, and how it is opened to be read or to be written."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from deploycheck.lazy import sqlite3
from deploycheck.registry.ledger import Entry, EvidenceEntry, Promotion, RegistryError
from deploycheck.store import hint_for

SCHEMA_VERSION = 1
BUSY_SECONDS = 30

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
_EVIDENCE = """CREATE TABLE IF NOT EXISTS evidence (
    seq INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, time TEXT NOT NULL,
    previous_hash TEXT NOT NULL, hash TEXT NOT NULL UNIQUE
) STRICT"""
"""A registry that an earlier version made hasn't this table until it is written to."""
_SHARED_MEMORY = 32 * 1024
"""Bytes of the file that sqlite makes to read a database that others may write."""


def create(path: Path) -> None:
    """Write an empty registry to ``path``."""
    with _explaining(path), _opened(_connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            database.execute(statement)
        database.execute("COMMIT")


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """Hold the write lock: all of the block happens, or none of it."""
    with _explaining(path), _opened(_connect(path)) as database:
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA foreign_keys = ON")
        database.execute("BEGIN IMMEDIATE")
        try:
            _check_schema(database, path)
            database.execute(_EVIDENCE)
            yield database
        except BaseException:
            if database.in_transaction:  # where the disk is full, sqlite has undone it already
                database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Read one state of the database, whatever others write meanwhile.

    It works on a read-only and on a full disk too, unless a process that was killed left changes in sqlite's log.
    """
    with _explaining(path), _opened(_begin_reading(path)) as database:
        _check_schema(database, path)
        yield database


def read_moves(database: sqlite3.Connection) -> tuple[Promotion, ...]:
    """Read the whole history, oldest first."""
    return tuple(Promotion(**row) for row in _rows(database, "promotions", Promotion))


def read_evidence(database: sqlite3.Connection) -> tuple[EvidenceEntry, ...]:
    """Read all recorded evidence, oldest first."""
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'evidence'").fetchone():
        return ()
    return tuple(EvidenceEntry(**row) for row in _rows(database, "evidence", EvidenceEntry))


def insert(database: sqlite3.Connection, table: str, row: Mapping[str, Any]) -> None:
    """Add a row, given by the names of its columns."""
    places = ", ".join("?" * len(row))
    database.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", tuple(row.values()))  # noqa: S608


def _rows(database: sqlite3.Connection, table: str, entry: type[Entry]) -> Iterator[dict[str, Any]]:
    names = [field.name for field in fields(entry)]
    for row in database.execute(f"SELECT {', '.join(names)} FROM {table} ORDER BY seq"):  # noqa: S608
        yield dict(zip(names, row, strict=True))


def _begin_reading(path: Path) -> sqlite3.Connection:
    try:
        return _begin(_connect(path, "?mode=ro"))
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in _unwritable() or _has_changes_in_log(path):
            raise
    return _begin(_connect(path, "?mode=ro&immutable=1"))  # nobody can write there: no lock is needed


def _begin(database: sqlite3.Connection) -> sqlite3.Connection:
    """Begin to read, which is when sqlite makes the files that readers share with writers."""
    try:
        database.execute("BEGIN")
        database.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error:
        database.close()
        raise
    return database


def _has_changes_in_log(path: Path) -> bool:
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0


def _connect(path: Path, options: str = "") -> sqlite3.Connection:
    return sqlite3.connect(path.absolute().as_uri() + options, timeout=BUSY_SECONDS, isolation_level=None, uri=True)


@contextmanager
def _opened(database: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    try:
        yield database
    finally:
        database.close()


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    """Turn sqlite's errors about the database at ``path`` into a ``RegistryError`` that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        hint = "check that it is a registry, that you may write there, and that no other program has it open"
        if _is_of_full_disk(error, path):
            hint = hint_for(errno.ENOSPC)
        raise RegistryError(f"sqlite says: {error}", where=str(path), hint=hint) from error


def _is_of_full_disk(error: sqlite3.Error, path: Path) -> bool:
    """Whether sqlite failed for lack of space; most of these errors it calls a failed input or output."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    if code == sqlite3.SQLITE_IOERR:
        return shutil.disk_usage(path.parent).free < _SHARED_MEMORY
    return code == sqlite3.SQLITE_FULL


def _check_schema(database: sqlite3.Connection, path: Path) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version != SCHEMA_VERSION:
        raise RegistryError(
            f"it has schema {version}, expected {SCHEMA_VERSION}",
            where=str(path),
            hint="the file is another program's, or of another version of deploycheck: choose another file",
        )


def _unwritable() -> frozenset[int]:
    """Return sqlite's codes for a file that can be read but not written."""
    return frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY})
