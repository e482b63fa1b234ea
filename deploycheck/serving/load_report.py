"""What serving an artifact under load was like. Imports no server, no client and no JAX."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPORT = "load.json"


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the machine was like while something was measured.

    ``others`` and ``stolen`` are the shares of its CPU time that other processes used and the host withheld;
    ``load_average`` and ``frequency_hz`` are the values before and after, the frequency 0 where it is unknown.
    """

    others: float
    stolen: float
    load_average: tuple[float, float]
    frequency_hz: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """One artifact, served and measured.

    ``latencies_s`` are seconds from when each request should have left to its whole reply, in that order, ``inf``
    for one that failed; where two artifacts were measured in turn, ``rounds`` says how many of them each round has.
    ``requests_per_s`` are rates over consecutive blocks of a server kept busy; ``schedule``, ``saturation`` and
    ``failures`` say in words how they were measured. ``doubt`` says why high latencies could be the client's fault,
    where they could; ``disturbed`` has a line for each interval that was repeated because the machine was disturbed.
    ``largest_difference`` is between served outputs and the model in memory, None where they weren't compared.
    ``histogram`` has the latencies once more as an HDR histogram, which can be merged with others.
    """

    latencies_s: tuple[float, ...] = ()
    rounds: tuple[int, ...] = ()
    schedule: str = ""
    doubt: str = ""
    requests_per_s: tuple[float, ...] = ()
    saturation: str = ""
    failed: int = 0
    failures: str = ""
    disturbed: tuple[str, ...] = ()
    largest_difference: float | None = None
    cold_start_s: float = 0.0
    peak_memory_bytes: float = 0.0
    recompilations: int = 0
    histogram: str = ""
    machine: Conditions | None = None


def write(reports: Mapping[str, LoadReport], folder: Path) -> None:
    """Write one or more reports, by the variant that was served, into ``folder``."""
    contents = {variant: asdict(report) for variant, report in reports.items()}
    (folder / REPORT).write_text(json.dumps(contents) + "\n")


def read(folder: Path) -> dict[str, LoadReport]:
    """Read what ``write`` wrote."""
    loaded: dict[str, dict[str, Any]] = json.loads((folder / REPORT).read_text())
    return {variant: _report(**_tuples(fields)) for variant, fields in loaded.items()}


def _report(*, machine: dict[str, Any] | None, **fields: Any) -> LoadReport:
    return LoadReport(**fields, machine=Conditions(**_tuples(machine)) if machine else None)


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
