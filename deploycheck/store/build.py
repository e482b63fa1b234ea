"""A store of artifacts that processes share: each step is done once, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from deploycheck.store.artifact import Artifact, check_address, corrupt, open_artifact, write_manifest
from deploycheck.store.disk import explained, flush


@dataclass(frozen=True)
class Building:
    """Where a step writes: ``out`` becomes the artifact; ``scratch`` survives a kill, and the step resumes from it."""

    out: Path
    scratch: Path


class Store:
    """A folder of artifacts, safe to share between processes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, kind: str, key: str) -> Artifact | None:
        """Return the artifact at an address, verified, or None where there is none.

        Raises ``CorruptArtifact`` where it is damaged, or is at an address that isn't its own.
        """
        path = self._final(kind, key)
        if not path.exists():
            return None
        artifact = open_artifact(path)
        if (artifact.kind, artifact.key) != (kind, key):
            raise corrupt(path, f"it is {artifact.kind}/{artifact.key}, which belongs at another address")
        return artifact

    def get_or_build(
        self,
        kind: str,
        key: str,
        build: Callable[[Building], Mapping[str, Any]],
        *,
        usable: Callable[[Artifact], bool] = lambda _: True,
        on_wait: Callable[[], None] = lambda: None,
    ) -> tuple[Artifact, bool]:
        """Return the artifact at an address, and whether it was there already.

        Where there is none, or it isn't ``usable``, ``build`` writes it and returns its ``meta``. One process builds,
        the others call ``on_wait`` and wait. A build that raises or is killed leaves nothing at the address, and its
        scratch stays. Raises ``CorruptArtifact`` as ``find`` does, ``StoreError`` where the disk can't be written.
        """
        found = self._find_usable(kind, key, usable)
        scratch = self._beside("work", kind, key)
        if found and not scratch.exists():
            return found, True
        with explained(self.root), self._lock(kind, key, on_wait):
            found = self._find_usable(kind, key, usable)
            artifact = found or self._build(kind, key, build)
            shutil.rmtree(scratch, ignore_errors=True)
        return artifact, found is not None

    def forget(self, kind: str, key: str) -> bool:
        """Remove the artifact at an address, damaged or not, and its scratch; return whether there was an artifact."""
        with explained(self.root), self._lock(kind, key, lambda: None):
            existed = self._final(kind, key).exists()
            self._remove(kind, key)
            shutil.rmtree(self._beside("work", kind, key), ignore_errors=True)
        return existed

    def _find_usable(self, kind: str, key: str, usable: Callable[[Artifact], bool]) -> Artifact | None:
        found = self.find(kind, key)
        return found if found and usable(found) else None

    def _remove(self, kind: str, key: str) -> None:
        """Remove the artifact at an address, and a partial one of that address."""
        final, partial = self._final(kind, key), self._beside("partial", kind, key)
        _clear(partial)  # left by a run that was killed
        if final.exists():
            final.rename(partial)  # a kill while it is removed must not leave half of it at the address
            shutil.rmtree(partial)

    def _build(self, kind: str, key: str, build: Callable[[Building], Mapping[str, Any]]) -> Artifact:
        final, partial = self._final(kind, key), self._beside("partial", kind, key)
        scratch = self._beside("work", kind, key)
        self._remove(kind, key)
        partial.mkdir()
        scratch.mkdir(parents=True, exist_ok=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            artifact = write_manifest(partial, kind, key, build(Building(partial, scratch)))
            partial.rename(final)
            flush(final.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return replace(artifact, path=final)

    def _final(self, kind: str, key: str) -> Path:
        check_address(kind, key)
        return self.root / kind / key

    def _beside(self, folder: str, kind: str, key: str) -> Path:
        return self.root / folder / f"{kind}-{key}"

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


def _clear(folder: Path) -> None:
    """Remove ``folder``, and make its parent."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
