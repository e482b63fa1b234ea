"""What several tests of the command do: call it, and write the evidence it is given."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from deploycheck.cli import main
from deploycheck.evidence import CandidateRecord, Evidence, TargetRecord
from deploycheck.evidence.forms.json import as_json
from deploycheck.runner.conclude import record
from deploycheck.runner.installed import extensions_from
from deploycheck.store import Artifact, Building, Store, fingerprint, open_artifact
from tests.evidence.records import check, evidence, spec
from tests.registry.processes import made

CACHE = Path(".deploycheck")
Captured = pytest.CaptureFixture[str]


def refused(capsys: Captured, *arguments: str) -> str:
    """Run a command that must be refused; return what it said on stderr."""
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert "Traceback" not in said.err
    return said.err


def run(*arguments: str, stdout: int = subprocess.PIPE, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own, as a shell does."""
    command = [sys.executable, "-m", "deploycheck.cli", *arguments]
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, env={**inherited, **environment}, check=False
    )


def digest(content: str) -> str:
    """Return the digest of an artifact that `made` made in the current folder."""
    return open_artifact(Path("made") / content).digest


def flip(path: Path) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def stored(content: str, meta: Mapping[str, Any] | None = None) -> Artifact:
    """Make an artifact in the project's store, with the digest that `made` would give it."""

    def copy(building: Building) -> Mapping[str, Any]:
        with TemporaryDirectory() as folder:
            shutil.copytree(made(Path(folder), content).path, building.out, dirs_exist_ok=True)
        (building.out / "manifest.json").unlink()
        return meta or {}

    return Store(CACHE / "store").get_or_build("model", fingerprint(content), copy)[0]


def promotable(artifact: Artifact, registry: str | None = None, replaces: str | None = None) -> Evidence:
    """Return the evidence of a run in which every check passed on an artifact, and which wrote it just now."""
    chosen = CandidateRecord(
        variant="int8", artifact=artifact.digest, key=artifact.key, path=str(artifact.path), size=20
    )
    target = TargetRecord(registry=registry, model="digits", alias="staging", replaces=replaces)
    document = evidence(spec(check(artifact=artifact.digest), chosen=chosen, target=target))
    return document.model_copy(update={"created": datetime.now(UTC).isoformat(timespec="seconds")})


def recorded(document: Evidence) -> str:
    """Write evidence to the current folder and record it, as its run does; return the name of its file."""
    assert record(document, CACHE.absolute(), extensions_from((), Path.cwd())) == ()
    return written(document)


def written(document: Evidence) -> str:
    """Write evidence to the current folder; return the name of its file."""
    Path("evidence.json").write_text(as_json(document))
    return "evidence.json"
