"""What serving an artifact under load was like. Imports no server, no client and no JAX."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

REPORT = "load.json"


@dataclass(frozen=True)
class LoadReport:
    """One artifact, served and measured.

    ``latencies_s`` are seconds from when each request should have left to its whole reply, ``inf`` for one that
    failed; ``requests_per_s`` are rates over consecutive blocks of a server kept busy; ``schedule``,
    ``saturation`` and ``failures`` say in words how it was taken. ``doubt`` says why high latencies could be the
    client's fault, where they could. ``largest_difference`` is between served outputs and the model in memory.
    """

    latencies_s: tuple[float, ...]
    schedule: str
    doubt: str
    requests_per_s: tuple[float, ...]
    saturation: str
    failed: int
    failures: str
    largest_difference: float
    cold_start_s: float
    peak_memory_bytes: float
    recompilations: int


def write(report: LoadReport, folder: Path) -> None:
    """Write the report into ``folder``."""
    (folder / REPORT).write_text(json.dumps(asdict(report)) + "\n")


def read(folder: Path) -> LoadReport:
    """Read what ``write`` wrote."""
    loaded: dict[str, Any] = json.loads((folder / REPORT).read_text())
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in loaded.items()}
    return LoadReport(**cast(dict[str, Any], fields))
