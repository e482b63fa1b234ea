"""The last day on which an artifact can be loaded, in a file of the artifact, so that its digest covers it."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

from deploycheck.store.artifact import Artifact, CorruptArtifact

LIFETIME = "lifetime.json"
_KEY = "loadable_until"


def write_lifetime(folder: Path, last: date) -> None:
    """Write the last day into the folder that becomes an artifact."""
    (folder / LIFETIME).write_text(json.dumps({_KEY: last.isoformat()}) + "\n")


def loadable_until(artifact: Artifact) -> date | None:
    """Return the last day on which an artifact can be loaded; None if it can be loaded for ever.

    Artifacts of earlier versions have it in their ``meta``. Raises ``CorruptArtifact`` where it is not a date.
    """
    text = _read(artifact) if LIFETIME in artifact.files else artifact.meta.get(_KEY)
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise CorruptArtifact(f"{_KEY} is {text!r}, expected a date", where=str(artifact.path)) from error


def _read(artifact: Artifact) -> Any:
    try:
        return json.loads(artifact.file(LIFETIME).read_bytes())[_KEY]
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptArtifact(f"{LIFETIME} has no {_KEY}", where=str(artifact.path)) from error
