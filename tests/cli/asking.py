"""What several tests of the command do: call it, and write the evidence it is given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploycheck.cli import main
from deploycheck.evidence import CandidateRecord, Evidence, TargetRecord
from deploycheck.evidence.forms.json import as_json
from deploycheck.store import Artifact, open_artifact
from tests.evidence.records import check, evidence, spec

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


def promotable(artifact: Artifact, registry: str | None = None) -> Evidence:
    """Return the evidence of a run in which every check passed on an artifact."""
    chosen = CandidateRecord(variant="int8", artifact=artifact.digest, path=str(artifact.path), size=20)
    target = TargetRecord(registry=registry, model="digits", alias="staging")
    return evidence(spec(check(artifact=artifact.digest), chosen=chosen, target=target))


def written(document: Evidence) -> str:
    """Write evidence to the current folder; return the name of its file."""
    Path("evidence.json").write_text(as_json(document))
    return "evidence.json"
