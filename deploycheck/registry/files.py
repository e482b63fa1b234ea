"""What a registry keeps beside its database: artifacts and evidence, in folders named after it.

For ``NAME.db``::

    NAME.artifacts/<digest>/        the registry's own copy of each proposed artifact
    NAME.evidence/<digest>.json     the evidence of each proposal
    NAME.partial/                   what is being copied into it
    NAME.lock                       held by the process that copies
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from deploycheck.store import MANIFEST, Artifact, CorruptArtifact, explained, flush, flush_tree, open_artifact


class RegistryFiles:
    """The files of the registry whose database is at ``database``."""

    def __init__(self, database: Path) -> None:
        self.artifacts = database.with_name(f"{database.stem}.artifacts")
        self.evidence = database.with_name(f"{database.stem}.evidence")
        self.partial = database.with_name(f"{database.stem}.partial")
        self.lock = database.with_name(f"{database.stem}.lock")

    def artifact_path(self, digest: str) -> Path:
        """Return where the artifact of a digest is."""
        return self.artifacts / digest.removeprefix("sha256:")

    def open(self, digest: str) -> Artifact:
        """Open an artifact; raise ``CorruptArtifact`` where it is damaged, or another one."""
        path = self.artifact_path(digest)
        artifact = open_artifact(path)
        if artifact.digest != digest:
            raise CorruptArtifact(f"it is {artifact.digest}, expected {digest}", where=str(path))
        return artifact

    @contextmanager
    def copying(self) -> Iterator[None]:
        """Hold the lock of those that copy files into the registry; ``partial`` is an empty folder within the block."""
        with explained(self.artifacts.parent):
            for folder in (self.artifacts, self.evidence):
                folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.lock):
                shutil.rmtree(self.partial, ignore_errors=True)  # left by a process that was killed
                self.partial.mkdir()
                try:
                    yield
                finally:
                    shutil.rmtree(self.partial, ignore_errors=True)

    def copy(self, artifact: Artifact) -> None:
        """Copy the artifact to its digest, whole or not at all; a copy that is there already is verified."""
        final, partial = self.artifact_path(artifact.digest), self.partial / "artifact"
        if final.exists():
            self.open(artifact.digest)
            return
        for name in (*artifact.files, MANIFEST):
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(artifact.path / name, partial / name)
        flush_tree(partial)
        if open_artifact(partial).digest != artifact.digest:
            raise CorruptArtifact("it changed while it was copied", where=str(artifact.path))
        partial.rename(final)
        flush(self.artifacts)

    def write_evidence(self, evidence: bytes) -> str:
        """Write the evidence to a file named by its digest; return the digest."""
        digest = f"sha256:{hashlib.sha256(evidence).hexdigest()}"
        partial = self.partial / "evidence"
        partial.write_bytes(evidence)
        flush(partial)
        partial.rename(self._evidence_path(digest))
        flush(self.evidence)
        return digest

    def evidence_problems(self, digest: str) -> Iterator[str]:
        """Yield what is wrong with the evidence of a digest."""
        path = self._evidence_path(digest)
        try:
            found = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        except OSError as error:
            yield f"{path}: the evidence can't be read: {error.strerror}"
            return
        if found != digest:
            yield f"{path}: the evidence was changed: expected {digest}, found {found}"

    def _evidence_path(self, digest: str) -> Path:
        return self.evidence / f"{digest.removeprefix('sha256:')}.json"
