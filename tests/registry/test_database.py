"""The registry's database file: who may read and write it at once, and what is said where it can't be used."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from deploycheck.registry import RegistryError
from deploycheck.registry import database as registry_database
from deploycheck.registry.sqlite import SqliteRegistry
from deploycheck.store import StoreError, write_manifest
from tests.registry.limited import run_on_a_small_disk, run_read_only
from tests.registry.processes import (
    NOW,
    current_digest,
    made,
    move,
    print_what_is_read,
    propose_and_print_what_is_left,
    read_and_promote_on_a_full_disk,
    read_what_a_killed_writer_left_on_a_full_disk,
    remove_shared_memory,
)


def run_of(function: Callable[..., None], *paths: Path) -> str:
    """Return Python code that calls a function of ``processes``."""
    given = ", ".join(f"Path({str(path)!r})" for path in paths)
    return f"from pathlib import Path; from {function.__module__} import {function.__name__} as run; run({given})"


def test_a_database_held_by_another_program_is_named(
    registry: SqliteRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = move(registry, made(tmp_path, "a"))
    monkeypatch.setattr(registry_database, "BUSY_SECONDS", 0)
    other = sqlite3.connect(registry.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RegistryError, match="database is locked") as caught:
        registry.promote("digits", "production", digest, expected=None, actor="ada", time=NOW)
    assert caught.value.where == str(registry.path)
    other.execute("ROLLBACK")
    registry.promote("digits", "production", digest, expected=None, actor="ada", time=NOW)
    other.close()


def test_a_registry_is_read_while_another_program_writes(registry: SqliteRegistry, tmp_path: Path) -> None:
    digest = move(registry, made(tmp_path, "a"))
    other = sqlite3.connect(registry.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("DELETE FROM promotions")
    assert current_digest(registry) == digest
    assert len(registry.history()) == 1
    assert registry.verify() == ()
    other.execute("ROLLBACK")
    other.close()


def test_a_file_that_is_no_database_is_refused_and_left_alone(registry: SqliteRegistry, tmp_path: Path) -> None:
    registry.path.write_bytes(b"not a database, but somebody's notes" * 100)
    with pytest.raises(RegistryError, match="not a database"):
        registry.propose("digits", made(tmp_path, "a"), b"{}", NOW)
    assert registry.path.read_bytes().startswith(b"not a database")


def test_a_database_of_another_program_is_refused_and_left_alone(registry: SqliteRegistry, tmp_path: Path) -> None:
    other = sqlite3.connect(registry.path)
    other.execute("CREATE TABLE photos (name TEXT)")
    other.commit()
    with pytest.raises(RegistryError, match="it has schema 0, expected 1"):
        registry.propose("digits", made(tmp_path, "a"), b"{}", NOW)
    assert [name for (name,) in other.execute("SELECT name FROM sqlite_master")] == ["photos"]
    other.close()


def test_a_registry_of_a_later_version_is_refused(registry: SqliteRegistry, tmp_path: Path) -> None:
    move(registry, made(tmp_path, "a"))
    database = sqlite3.connect(registry.path)
    database.execute("PRAGMA user_version = 2")
    database.close()
    with pytest.raises(RegistryError, match="it has schema 2, expected 1"):
        registry.history()


def test_a_registry_can_be_read_from_a_read_only_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    registry = SqliteRegistry(disk / "registry.db")
    digest = move(registry, made(tmp_path, "a"))
    remove_shared_memory(registry)
    said = run_read_only(run_of(print_what_is_read, registry.path), disk)
    assert said == f"current {digest}\nhistory 1\nverify ()\n"


def test_a_registry_can_be_read_from_a_full_disk_and_a_refused_promotion_names_it(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = run_of(read_and_promote_on_a_full_disk, disk / "registry.db", tmp_path)
    current, history, verified, *refused = run_on_a_small_disk(script, disk, kibibytes=512).splitlines()
    assert current.startswith("current sha256:")
    assert (history, verified) == ("history 1", "verify ()")
    assert refused[0].startswith(f"RegistryError {disk / 'registry.db'}: sqlite says: ")
    assert refused[1].startswith("  hint: the disk is full")


def test_changes_that_a_killed_writer_left_are_not_passed_over_on_a_full_disk(tmp_path: Path) -> None:
    """Without its log the database is an older state: reading that would name the wrong version."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = run_of(read_what_a_killed_writer_left_on_a_full_disk, disk / "registry.db", tmp_path)
    said = run_on_a_small_disk(script, disk, kibibytes=512)
    assert said.startswith("RegistryError")
    assert "hint: the disk is full" in said


def test_a_full_disk_is_named_and_no_half_of_an_artifact_is_kept(tmp_path: Path) -> None:
    artifact = made(tmp_path, "a" * 200)
    (artifact.path / "weights.bin").write_bytes(bytes(1 << 20))
    artifact = write_manifest(artifact.path, "model", "ab" * 32, {})
    disk = tmp_path / "disk"
    disk.mkdir()
    script = run_of(propose_and_print_what_is_left, disk / "registry.db", artifact.path)
    said = run_on_a_small_disk(script, disk, kibibytes=256)
    assert said.startswith(f"StoreError {disk}")
    assert "can't be written: No space left on device\n  hint: the disk is full" in said
    assert "left []" in said


def test_a_read_only_disk_is_named(tmp_path: Path) -> None:
    artifact = made(tmp_path, "a")
    disk = tmp_path / "disk"
    disk.mkdir()
    script = run_of(propose_and_print_what_is_left, disk / "registry.db", artifact.path)
    said = run_read_only(script, disk)
    assert said.startswith(f"StoreError {disk}")
    assert "Read-only file system\n  hint: the file system is read-only" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_rights_is_named(registry: SqliteRegistry, tmp_path: Path) -> None:
    artifact = made(tmp_path, "a")
    tmp_path.chmod(0o555)
    with pytest.raises(StoreError, match="you may not write there"):
        registry.propose("digits", artifact, b"{}", NOW)
