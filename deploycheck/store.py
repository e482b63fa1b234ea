"""Artifacts by content address: made once, written whole or not at all, verified whenever they are read.

Under a store's root::

    <kind>/<key>/           finished artifacts, each with its manifest.json
    partial/<kind>-<key>/   one being written; wiped when its step is begun again
    work/<kind>-<key>/      what a step keeps to resume from (checkpoints); removed once it is finished
    locks/                  one file a key: between processes a step is done once, the others wait
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout

from deploycheck.errors import DeploycheckError

MANIFEST = "manifest.json"
FORMAT = 1

_KIND = re.compile(r"[a-z][a-z0-9-]*")
_KEY = re.compile(r"[0-9a-f]{64}")


class StoreError(DeploycheckError):
    """The store can't be read or written: a full disk, a missing right."""


class CorruptArtifact(DeploycheckError):
    """An artifact is not what its manifest says. It is named, and never used."""


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact, as its manifest lists it; ``size`` in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Artifact:
    """A verified artifact.

    ``digest`` covers its kind and its files; ``key`` is the address it was made under; ``meta`` is informational.
    """

    path: Path
    kind: str
    key: str
    digest: str
    files: Mapping[str, FileEntry]
    meta: Mapping[str, Any]

    def file(self, name: str) -> Path:
        """Return the path of one of its files; a name that it doesn't have is a ``CorruptArtifact``."""
        if name not in self.files:
            raise CorruptArtifact(f"has no file {name}, only {', '.join(self.files)}", where=str(self.path))
        return self.path / name


@dataclass(frozen=True)
class Building:
    """Where a step writes: ``out`` becomes the artifact, ``scratch`` survives a kill and is there to resume from."""

    out: Path
    scratch: Path


def fingerprint(content: Any) -> str:
    """Return the sha256 (64 hex digits) of plain JSON content, whatever order its keys are in."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def open_artifact(path: Path) -> Artifact:
    """Read an artifact's manifest and verify every file against it, before anything is returned.

    Raises ``CorruptArtifact`` that names the file, what was expected and what was found.
    """
    artifact = _read_manifest(path)
    found = set(_files_in(path)) - {MANIFEST}
    for name in sorted(found - set(artifact.files)):
        raise _corrupt(path, f"{name} is there, but the manifest doesn't list it")
    for name, entry in artifact.files.items():
        if name not in found:
            raise _corrupt(path, f"{name} is missing")
        seen = _entry(path / name)
        if seen != entry:
            raise _corrupt(
                path, f"{name} is damaged: expected sha256 {entry.sha256} ({entry.size} bytes), "
                f"found {seen.sha256} ({seen.size} bytes)",
            )  # fmt: skip
    return artifact


def _read_manifest(path: Path) -> Artifact:
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        files = {str(name): FileEntry(str(e["sha256"]), int(e["size"])) for name, e in manifest["files"].items()}
        kind, key, digest = str(manifest["kind"]), str(manifest["key"]), str(manifest["digest"])
        meta, version = dict(manifest["meta"]), manifest["format"]
    except FileNotFoundError as error:
        raise _corrupt(path, f"{MANIFEST} is missing") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _corrupt(path, f"{MANIFEST} can't be read: {type(error).__name__}") from error
    if version != FORMAT:
        raise _corrupt(path, f"{MANIFEST} has the format {version!r}, expected {FORMAT}")
    for name in files:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or parts.as_posix() != name or name == MANIFEST:
            raise _corrupt(path, f"{MANIFEST} names a file outside of the artifact: {name!r}")
    if digest != _digest(kind, files):
        raise _corrupt(path, f"{MANIFEST} is damaged: its digest is not that of what it lists")
    if not _KIND.fullmatch(kind) or not _KEY.fullmatch(key):
        raise _corrupt(path, f"{MANIFEST} is damaged: its kind or key is malformed")
    return Artifact(path, kind, key, digest, files, meta)


def _corrupt(path: Path, what: str) -> CorruptArtifact:
    return CorruptArtifact(what, where=str(path), hint=f"it can't be trusted: remove that folder, then run again to make it anew")


def _files_in(path: Path) -> Iterator[str]:
    """Yield the files of a folder by relative POSIX name; anything but a regular file is refused."""
    for folder, folders, names in os.walk(path):
        for name in (*folders, *names):
            at = Path(folder) / name
            mode = at.lstat().st_mode
            relative = at.relative_to(path).as_posix()
            if stat.S_ISREG(mode):
                yield relative
            elif not stat.S_ISDIR(mode):
                raise _corrupt(path, f"{relative} is not a regular file")


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        return FileEntry(hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size)


def _digest(kind: str, files: Mapping[str, FileEntry]) -> str:
    listed = {name: {"sha256": entry.sha256, "size": entry.size} for name, entry in files.items()}
    return "sha256:" + fingerprint({"kind": kind, "files": listed})


def write_manifest(folder: Path, kind: str, key: str, meta: Mapping[str, Any]) -> Artifact:
    """Make what lies in ``folder`` an artifact: hash its files, write the manifest, and flush all to disk."""
    files = {name: _entry(folder / name) for name in sorted(_files_in(folder)) if name != MANIFEST}
    digest = _digest(kind, files)
    manifest = {
        "format": FORMAT, "kind": kind, "key": key, "digest": digest,
        "files": {name: {"sha256": entry.sha256, "size": entry.size} for name, entry in files.items()},
        "meta": dict(meta),
    }  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    for name in (*files, MANIFEST):
        flush(folder / name)
    flush(folder)
    return Artifact(folder, kind, key, digest, files, dict(meta))


def flush(path: Path) -> None:
    """Have the system write a file or folder to disk, so that a power cut can't take it back."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write under ``path`` into a ``StoreError`` that says what to do."""
    hints = {
        errno.ENOSPC: "the disk is full: free some space and run again; nothing half-written was kept",
        errno.EFBIG: "a limit on file sizes stands in the way (ulimit -f)",
        errno.EDQUOT: "your quota is used up: free some space and run again",
        errno.EROFS: "the file system is read-only: choose another folder with --deploycheck-cache",
        errno.EACCES: "no right to write there: choose another folder with --deploycheck-cache",
    }
    try:
        yield
    except OSError as error:
        if error.errno not in hints:
            raise
        raise StoreError(f"can't be written: {error.strerror}", where=str(error.filename or path), hint=hints[error.errno]) from error


class Store:
    """A folder of artifacts, safe to share between processes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, kind: str, key: str) -> Artifact | None:
        """Return the artifact at an address, verified, or None. Raises ``CorruptArtifact`` where it is damaged."""
        path = self._path(kind, key)
        if not path.exists():
            return None
        artifact = open_artifact(path)
        if (artifact.kind, artifact.key) != (kind, key):
            raise _corrupt(path, f"it is {artifact.kind}/{artifact.key}, which belongs elsewhere")
        return artifact

    def get_or_build(
        self,
        kind: str,
        key: str,
        build: Callable[[Building], Mapping[str, Any]],
        *,
        on_wait: Callable[[], None] = lambda: None,
    ) -> tuple[Artifact, bool]:
        """Return the artifact at an address, and whether it was there already.

        Where it isn't, ``build`` writes it and returns its ``meta``. One process builds, the others wait, each
        after calling ``on_wait``. A build that raises or is killed leaves nothing at the address.
        """
        found = self.find(kind, key)
        if found:
            return found, True
        with explained(self.root), self._lock(kind, key, on_wait):
            found = self.find(kind, key)
            if found:
                return found, True
            return self._build(kind, key, build), False

    def _build(self, kind: str, key: str, build: Callable[[Building], Mapping[str, Any]]) -> Artifact:
        partial, scratch = (self.root / folder / f"{kind}-{key}" for folder in ("partial", "work"))
        shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
        partial.mkdir(parents=True)
        scratch.mkdir(parents=True, exist_ok=True)
        try:
            meta = build(Building(partial, scratch))
            artifact = write_manifest(partial, kind, key, meta)
            final = self._path(kind, key)
            final.parent.mkdir(parents=True, exist_ok=True)
            partial.rename(final)
            flush(final.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(scratch, ignore_errors=True)
        return Artifact(final, artifact.kind, artifact.key, artifact.digest, artifact.files, artifact.meta)

    def _path(self, kind: str, key: str) -> Path:
        if not _KIND.fullmatch(kind) or not _KEY.fullmatch(key):
            raise ValueError(f"no address: {kind}/{key}")
        return self.root / kind / key

    @contextmanager
    def _lock(self, kind: str, key: str, on_wait: Callable[[], None]) -> Iterator[None]:
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{kind}-{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait()
            lock.acquire()
        try:
            yield
        finally:
            lock.release()
