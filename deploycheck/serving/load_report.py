"""What serving an artifact under load was like. Imports no server, no client and no JAX."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPORT = "load.json"
NEXT_S = 0.05
"""Disturbances that are less than this apart are one."""


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


@dataclass(frozen=True)
class Disturbance:
    """What disturbed the machine: from ``at_s`` seconds after the load began, for ``lasted_s`` seconds."""

    at_s: float
    lasted_s: float
    what: str

    def __str__(self) -> str:
        return f"after {self.at_s:.1f} s, for {self.lasted_s:.1f} s: {self.what}"


def summarise(disturbed: Sequence[Disturbance]) -> tuple[str, ...]:
    """Return in words the first, the last and the longest of the disturbances, each once."""
    if not disturbed:
        return ()
    named = {"first": disturbed[0], "last": disturbed[-1], "longest": max(disturbed, key=lambda one: one.lasted_s)}
    of_each: dict[Disturbance, list[str]] = {}
    for name, one in named.items():
        of_each.setdefault(one, []).append(name)
    return tuple(f"{' and '.join(names)} {one}" for one, names in of_each.items())


def joined(disturbed: Iterable[Disturbance]) -> tuple[Disturbance, ...]:
    """Return the disturbances with those joined that follow one another; the joined one is described as its last."""
    found: list[Disturbance] = []
    for one in disturbed:
        if found and one.at_s - (found[-1].at_s + found[-1].lasted_s) < NEXT_S:
            first = found.pop()
            one = Disturbance(first.at_s, one.at_s + one.lasted_s - first.at_s, one.what)
        found.append(one)
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """One artifact, served and measured.

    ``latencies_s`` are seconds from when each request should have left to its whole reply, in that order, ``inf``
    for one that failed; where two artifacts were measured in turn, ``rounds`` says how many of them each round has.
    ``requests_per_s`` are rates over consecutive blocks of a server kept busy; ``schedule``, ``saturation`` and
    ``failures`` say in words how they were measured. ``doubt`` says why high latencies could be the client's fault,
    where they could. ``disturbed`` is what disturbed the machine; ``disturbed_requests`` and ``disturbed_blocks`` say
    which of the latencies and of the rates were taken meanwhile, ``disturbed_start`` what disturbed the cold start.
    ``sent`` is how many requests ``failed`` is of, on the schedule and to keep the server busy.
    ``lasted_s`` and ``busy_s`` are the seconds over which requests were sent, and the server was kept busy.
    Where two artifacts were measured in turn, disturbed rounds are left out, and ``disturbed`` has one for each.
    ``largest_difference`` is between served outputs and the model in memory, None where they weren't compared.
    ``histogram`` has the latencies once more as an HDR histogram, which can be merged with others.
    """

    latencies_s: tuple[float, ...] = ()
    rounds: tuple[int, ...] = ()
    schedule: str = ""
    doubt: str = ""
    requests_per_s: tuple[float, ...] = ()
    saturation: str = ""
    sent: int = 0
    failed: int = 0
    failures: str = ""
    disturbed: tuple[Disturbance, ...] = ()
    disturbed_requests: tuple[bool, ...] = ()
    disturbed_blocks: tuple[bool, ...] = ()
    disturbed_start: str = ""
    lasted_s: float = 0.0
    busy_s: float = 0.0
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


def _report(*, machine: dict[str, Any] | None, disturbed: Sequence[dict[str, Any]], **fields: Any) -> LoadReport:
    return LoadReport(
        **fields,
        disturbed=tuple(Disturbance(**one) for one in disturbed),
        machine=Conditions(**_tuples(machine)) if machine else None,
    )


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
