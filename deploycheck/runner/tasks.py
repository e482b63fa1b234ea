"""Steps as tasks: what a worker is given to do, and where its result is stored."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from deploycheck.errors import DeploycheckError
from deploycheck.store import Artifact, fingerprint, loadable_until, open_artifact
from deploycheck.store.disk import write_whole

RENEW_BEFORE = timedelta(days=90)
"""An exported program that expires sooner than this is exported again."""


class AlreadyFailed(Exception):
    """Another process of this run has tried the step, and failed; the text is the step's name."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One step to do, as plain data. Its process is given this and the files that it names, and nothing else.

    ``store`` is where its artifact belongs, under ``kind`` and one of the ``addresses`` of ``key``; ``inputs`` are
    folders of artifacts by role, ``digests`` what each of them must be;
    ``extensions`` are the files that declare what it uses by name; ``failed`` is the file, in the run's folder, that
    says that it failed.
    """

    kind: str
    key: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, Path]
    digests: Mapping[str, str]
    extensions: tuple[Path, ...]
    store: Path
    failed: Path
    name: str

    def to_json(self) -> str:
        """Return the task as one line of JSON."""
        return json.dumps(vars(self), default=str)

    @classmethod
    def from_json(cls, line: str) -> Task:
        """Read what ``to_json`` wrote."""
        fields = json.loads(line)
        return cls(
            kind=fields["kind"],
            key=fields["key"],
            settings=fields["settings"],
            inputs={role: Path(path) for role, path in fields["inputs"].items()},
            digests=fields["digests"],
            extensions=tuple(map(Path, fields["extensions"])),
            store=Path(fields["store"]),
            failed=Path(fields["failed"]),
            name=fields["name"],
        )

    def open_inputs(self) -> dict[str, Artifact]:
        """Return the input artifacts by role; raise ``DeploycheckError`` where one isn't the one that was meant."""
        return {role: _open(path, self.digests[role]) for role, path in self.inputs.items()}

    def check_not_failed(self) -> None:
        """Raise ``AlreadyFailed`` where this step has failed in another process of the run."""
        if self.failed.exists():
            raise AlreadyFailed(self.failed.read_text())

    def mark_failed(self) -> None:
        """Tell the other processes of the run that this step failed."""
        write_whole(self.failed, self.name)


def _open(path: Path, digest: str) -> Artifact:
    artifact = open_artifact(path)
    if artifact.digest != digest:
        what = f"its digest is {artifact.digest}, expected {digest}"
        raise DeploycheckError(what, where=str(path), hint="something replaced it in the cache: run again")
    return artifact


def addresses(key: str) -> Iterator[str]:
    """Yield the addresses at which the artifacts of a key are, in the order in which they were made.

    There are several if the user's code used something that is in no key, and that has changed since. Endless.
    """
    yield key
    for number in itertools.count(1):
        yield fingerprint([key, number])


def lasts(artifact: Artifact) -> bool:
    """Whether an artifact can be loaded for long enough to be shipped; only exported programs expire."""
    until = loadable_until(artifact)
    return until is None or until >= datetime.now(UTC).date() + RENEW_BEFORE
