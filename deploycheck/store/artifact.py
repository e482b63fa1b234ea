"""A folder with a manifest of digests: written once, verified whenever it is read."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from deploycheck.errors import DeploycheckError
from deploycheck.store.disk import StoreError, flush_tree

MANIFEST = "manifest.json"
FORMAT = 1

_KIND = re.compile(r"[a-z][a-z0-9_-]*")
_KEY = re.compile(r"[0-9a-f]{64}")
_NO_KINDS = frozenset({"partial", "work", "locks"})
"""The names of a store's own folders."""


class CorruptArtifact(DeploycheckError):
    """An artifact is not what its manifest says: it is never used."""


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact, as its manifest lists it; ``size`` in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A verified artifact.

    ``digest`` covers its kind and its files. ``key`` is the address it was made for. No digest covers ``meta``, which
    says how and when the files were made, and never what they are.
    """

    path: Path
    kind: str
    key: str
    digest: str
    files: Mapping[str, FileEntry]
    meta: Mapping[str, Any]

    def file(self, name: str) -> Path:
        """Return the path of one of its files. Raises ``CorruptArtifact`` where it has no file of that name."""
        if name not in self.files:
            raise CorruptArtifact(f"has no file {name}, only {', '.join(self.files)}", where=str(self.path))
        return self.path / name


def fingerprint(content: Any) -> str:
    """Return the sha256 (64 hex digits) of plain JSON content, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def open_artifact(path: Path) -> Artifact:
    """Read an artifact's manifest and verify every file against it, before anything is returned.

    Raises ``CorruptArtifact`` that names the file, what was expected and what was found; ``StoreError`` where
    the system refuses to read it.
    """
    try:
        if not path.is_dir():
            raise corrupt(path, "there is no such folder")
        found = set(_files_in(path))  # before the manifest is read: reading a FIFO would never end
        if MANIFEST not in found:
            raise corrupt(path, f"{MANIFEST} is missing")
        artifact = _parse_manifest(path, (path / MANIFEST).read_bytes())
        for name in sorted(found - set(artifact.files) - {MANIFEST}):
            raise corrupt(path, f"{name} is there, but the manifest doesn't list it")
        for name, entry in artifact.files.items():
            if name not in found:
                raise corrupt(path, f"{name} is missing")
            _verify_file(path, name, entry)
    except OSError as error:
        raise StoreError(f"can't be read: {error.strerror}", where=str(error.filename or path)) from error
    return artifact


def _verify_file(path: Path, name: str, expected: FileEntry) -> None:
    found = _entry(path / name)
    if found != expected:
        raise corrupt(
            path,
            f"{name} is damaged: expected sha256 {expected.sha256} ({expected.size} bytes), "
            f"found {found.sha256} ({found.size} bytes)",
        )


def _parse_manifest(path: Path, content: bytes) -> Artifact:
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise corrupt(path, f"{MANIFEST} is damaged: it is not JSON") from error
    match manifest:
        case {"format": int(version), **_rest} if version != FORMAT:
            raise corrupt(path, f"{MANIFEST} has the format {version}, expected {FORMAT}")
        case {
            "format": int(),
            "kind": str(kind),
            "key": str(key),
            "digest": str(digest),
            "files": dict(listed),
            "meta": dict(meta),
        } if _KIND.fullmatch(kind) and _KEY.fullmatch(key):
            files = {name: _parse_entry(path, name, entry) for name, entry in listed.items()}
        case _:
            raise corrupt(path, f"{MANIFEST} is damaged: its fields are not those of a manifest")
    if digest != _digest(kind, files):
        raise corrupt(path, f"{MANIFEST} is damaged: its digest is not that of what it lists")
    return Artifact(path=path, kind=kind, key=key, digest=digest, files=files, meta=meta)


def _parse_entry(path: Path, name: str, entry: object) -> FileEntry:
    if not _is_file_name(name):
        raise corrupt(path, f"{MANIFEST} names a file outside of the artifact: {name!r}")
    match entry:
        case {"sha256": str(sha256), "size": int(size)} if _KEY.fullmatch(sha256):
            return FileEntry(sha256, size)
        case _:
            raise corrupt(path, f"{MANIFEST} is damaged: its entry for {name} has no sha256 or no size")


def _is_file_name(name: str) -> bool:
    """Whether a manifest may list this name: relative, in its one spelling, inside the folder."""
    path = PurePosixPath(name)
    one_spelling = name.isprintable() and bool(path.parts) and path.as_posix() == name
    return one_spelling and not path.is_absolute() and ".." not in path.parts and name != MANIFEST


def corrupt(path: Path, what: str) -> CorruptArtifact:
    """Return the error that says what is wrong with the artifact at ``path``."""
    hint = "it can't be trusted: remove that folder, then run again to make a new one"
    return CorruptArtifact(what, where=str(path), hint=hint)


def _files_in(path: Path) -> Iterator[str]:
    """Yield the relative POSIX names of a folder's files. Raises ``CorruptArtifact`` for what is not a regular file."""

    def refuse(error: OSError) -> None:
        raise error

    for folder, folders, names in os.walk(path, onerror=refuse):
        for name in (*folders, *names):
            at = Path(folder) / name
            mode = at.lstat().st_mode
            relative = at.relative_to(path).as_posix()
            if stat.S_ISREG(mode):
                yield relative
            elif not stat.S_ISDIR(mode):
                raise corrupt(path, f"{relative} is not a regular file")


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        return FileEntry(hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size)


def _digest(kind: str, files: Mapping[str, FileEntry]) -> str:
    listed = {name: asdict(entry) for name, entry in files.items()}
    return "sha256:" + fingerprint({"kind": kind, "files": listed})


def write_manifest(folder: Path, kind: str, key: str, meta: Mapping[str, Any]) -> Artifact:
    """Make ``folder`` an artifact: hash its files, write the manifest, and flush all to disk.

    Raises ``CorruptArtifact`` where the folder has something that an artifact can't have.
    """
    check_address(kind, key)
    files = {name: _entry(folder / name) for name in sorted(_files_in(folder)) if name != MANIFEST}
    for name in files:
        if not _is_file_name(name):
            raise corrupt(folder, f"{name!r} is not a name for a file of an artifact")
    digest = _digest(kind, files)
    manifest = {
        "format": FORMAT,
        "kind": kind,
        "key": key,
        "digest": digest,
        "files": {name: asdict(entry) for name, entry in files.items()},
        "meta": dict(meta),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    flush_tree(folder)
    return Artifact(path=folder, kind=kind, key=key, digest=digest, files=files, meta=dict(meta))


def check_address(kind: str, key: str) -> None:
    """Raise ``ValueError`` unless an artifact can be of this kind, under this key."""
    if not _KIND.fullmatch(kind) or kind in _NO_KINDS or not _KEY.fullmatch(key):
        raise ValueError(f"not an address of an artifact: {kind}/{key}")
