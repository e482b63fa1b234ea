"""Opening an exported model: what every runtime's export is held to before any of it is loaded.

Exported programs have no integrity check of their own: half of all flipped bits load and answer wrongly, and some
crash the process. So nothing is deserialised before the digest of every file was verified.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from deploycheck.errors import DeploycheckError, located
from deploycheck.serving.runtimes import Engine, find_runtime
from deploycheck.serving.signature import SIGNATURE, read_signature
from deploycheck.store import Artifact, loadable_until, open_artifact


class LoadError(DeploycheckError):
    """An artifact whose files are undamaged, but that can't be served here."""


def open_for_serving(folder: Path, extensions: Sequence[Path], sizes: Sequence[int]) -> Engine:
    """Return an engine for the exported model in ``folder``, by the runtime that its signature names.

    ``extensions`` are the files in which that runtime may be declared, ``sizes`` the batch sizes it is compiled for.
    Raises ``CorruptArtifact`` where a digest doesn't match, ``LoadError`` where the artifact is not an exported
    model, where it expired, or where its runtime can't load it.
    """
    artifact = open_artifact(folder)
    with located(str(folder)):
        check_exported(artifact)
        runtime = find_runtime(read_signature(artifact.file(SIGNATURE)).runtime, extensions)
        try:
            return runtime.engine(artifact, sizes)
        except DeploycheckError:
            raise
        except Exception as error:  # a plugin's runtime may raise anything
            what = f"the runtime {runtime.name!r} can't load it: {type(error).__name__}: {error}"
            raise LoadError(what) from error


def open_compiled(folder: Path, extensions: Sequence[Path], sizes: Sequence[int]) -> Engine:
    """Return what ``open_for_serving`` returns, compiled for these batch sizes."""
    engine = open_for_serving(folder, extensions, sizes)
    engine.compile()
    return engine


def check_exported(artifact: Artifact) -> None:
    """Raise ``LoadError`` unless it is an exported model that hasn't expired."""
    if artifact.kind != "model":
        raise LoadError(f"is an artifact of kind {artifact.kind!r}, expected an exported model")
    until = loadable_until(artifact)
    if until and datetime.now(UTC).date() > until:
        raise LoadError(
            f"could be loaded until {until.isoformat()}", hint="run the gate again: it exports the model again"
        )
