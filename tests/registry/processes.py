"""What the tests of the store and of the registry run in processes of their own.

Apart from the tests, so that a process starts without importing what only they need.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploycheck.errors import DeploycheckError
from deploycheck.registry import Registry, StalePromotion
from deploycheck.registry.sqlite import SqliteRegistry
from deploycheck.store import Artifact, Building, Store, open_artifact, write_manifest
from tests.registry.fail_points import Arm

KEY = "ab" * 32
NOW = "2026-11-23T15:00:00+00:00"


def fill(building: Building) -> Mapping[str, Any]:
    (building.out / "weights.bin").write_bytes(bytes(range(64)))
    (building.out / "notes").mkdir()
    (building.out / "notes" / "signature.json").write_text('{"model": "digits"}')
    return {"created": "2026-11-23"}


def build_until_killed(folder: Path, arm: Arm) -> None:
    arm()
    Store(folder).get_or_build("model", KEY, fill)


def rebuild_then_forget_until_killed(folder: Path, arm: Arm) -> None:
    store = Store(folder)
    store.get_or_build("model", KEY, fill)
    arm()
    store.forget("model", KEY)


def killed_while_holding_the_lock(root: Path) -> None:
    def die(building: Building) -> Mapping[str, Any]:
        (building.out / "weights.bin").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    Store(root).get_or_build("model", KEY, die)


def build_together(root: Path, barrier: Any, said: Any) -> None:
    def count(building: Building) -> Mapping[str, Any]:
        said.put("built")
        waited.wait(5)
        return fill(building)

    waited = barrier[1]
    barrier[0].wait()
    _, reused = Store(root).get_or_build("model", KEY, count, on_wait=waited.set)
    said.put(("reused", reused))


def made(folder: Path, content: str, meta: Mapping[str, Any] | None = None) -> Artifact:
    """Make an artifact; the content decides its digest."""
    at = folder / "made" / content
    (at / "notes").mkdir(parents=True)
    (at / "weights.bin").write_bytes(content.encode() * 20)
    (at / "notes" / "signature.json").write_text("{}")
    return write_manifest(at, "model", "ab" * 32, meta or {})


def current_digest(registry: Registry, alias: str = "staging") -> str | None:
    version = registry.current("digits", alias)
    return version.digest if version else None


def move(registry: Registry, artifact: Artifact, alias: str = "staging", evidence: bytes = b"{}") -> str:
    """Propose and promote an artifact, in place of the version that the alias points at."""
    expected = current_digest(registry, alias)
    version = registry.propose("digits", artifact, evidence, NOW)
    registry.promote("digits", alias, version.digest, expected=expected, actor="ada", time=NOW)
    return version.digest


def promote_until_killed(folder: Path, arm: Arm) -> None:
    registry = SqliteRegistry(folder / "registry.db")
    move(registry, made(folder, "old"), evidence=b"old")
    artifact = made(folder, "new")
    arm()
    move(registry, artifact, evidence=b"new")


def roll_back_until_killed(folder: Path, arm: Arm) -> None:
    registry = SqliteRegistry(folder / "registry.db")
    move(registry, made(folder, "old"))
    move(registry, made(folder, "new"))
    arm()
    registry.roll_back("digits", "staging", actor="ada", time=NOW)


def first_promotion_until_killed(folder: Path, arm: Arm) -> None:
    artifact = made(folder, "new")
    arm()
    move(SqliteRegistry(folder / "registry.db"), artifact)


def promote_together(root: Path, number: int, barrier: Any, said: Any) -> None:
    registry = SqliteRegistry(root / "registry.db")
    artifact = open_artifact(root / "made" / f"model{number}")
    barrier.wait()
    version = registry.propose("digits", artifact, str(number).encode(), NOW)
    barrier.wait()
    try:
        registry.promote("digits", "staging", version.digest, expected=None, actor=f"p{number}", time=NOW)
        said.put(version.digest)
    except StalePromotion:
        said.put("stale")


def print_what_is_read(path: Path) -> None:
    registry = SqliteRegistry(path)
    try:
        version = registry.current("digits", "staging")
        print("current", version.digest if version else None)
        print("history", len(registry.history()))
        print("verify", registry.verify())
    except DeploycheckError as error:
        print(type(error).__name__, error)


def read_and_promote_on_a_full_disk(path: Path, folder: Path) -> None:
    registry = SqliteRegistry(path)
    digest = move(registry, made(folder, "a"))
    remove_shared_memory(registry)
    fill_the_disk(path.parent)
    print_what_is_read(path)
    try:
        registry.promote("digits", "production", digest, expected=None, actor="ada", time=NOW)
    except DeploycheckError as error:
        print(type(error).__name__, error)


def read_what_a_killed_writer_left_on_a_full_disk(path: Path, folder: Path) -> None:
    move(SqliteRegistry(path), made(folder, "a"))
    process = multiprocessing.get_context("fork").Process(target=_change_until_killed, args=(path,))
    process.start()
    process.join()
    remove_shared_memory(SqliteRegistry(path))
    fill_the_disk(path.parent)
    print_what_is_read(path)


def _change_until_killed(path: Path) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("DELETE FROM promotions")
    os.kill(os.getpid(), signal.SIGKILL)


def propose_and_print_what_is_left(path: Path, artifact: Path) -> None:
    registry = SqliteRegistry(path)
    try:
        registry.propose("digits", open_artifact(artifact), b"{}", "now")
    except DeploycheckError as error:
        print(type(error).__name__, error)
    print("left", [path.name for path in registry.files.artifacts.glob("[!.]*")])


def remove_shared_memory(registry: SqliteRegistry) -> None:
    """Remove the file that readers share with writers, which a copy of the registry doesn't have."""
    registry.path.with_name(f"{registry.path.name}-shm").unlink(missing_ok=True)


def fill_the_disk(folder: Path) -> None:
    with (folder / "rest").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return
