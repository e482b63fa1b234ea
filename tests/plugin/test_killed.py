"""A whole run killed with SIGKILL, where it hurts most, and run again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from deploycheck.registry.sqlite import SqliteRegistry
from deploycheck.store import open_artifact
from tests.plugin.conftest import SPEC, Project

# The project's own conftest pulls the plug: when a line of progress, or a step of promotion, has the word asked for.
PLUG = """
import os, signal
from pathlib import Path
from deploycheck.registry import sqlite

word, log = os.environ.get("PULL_AT", ""), Path("progress.log")


def said(line):
    with log.open("a") as file:
        print(line, file=file)
    if word and word in line:
        os.kill(os.getpid(), signal.SIGKILL)


def pytest_collection_finish(session):
    session.config.pluginmanager.get_plugin("deploycheck-gate").progress = said
    for name in ("propose", "promote"):
        def step(*arguments, name=name, whole=getattr(sqlite.SqliteRegistry, name), **options):
            said(f"before {name}")
            done = whole(*arguments, **options)
            said(f"after {name}")
            return done
        setattr(sqlite.SqliteRegistry, name, step)
"""


@pytest.fixture
def plugged(project: Project) -> Project:
    project.pytester.makeconftest(PLUG)
    before, _, after = SPEC.replace("epochs: 12", "epochs: 8\n  seeds: [0, 1]").partition("compress:")
    project.write(before + "promote:" + after.partition("promote:")[2])
    return project


def gate(project: Project, word: str) -> int:
    options = ["--deploycheck", "--deploycheck-promote", "--deploycheck-cache=cache", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, "spec.yaml"]
    environment = {**os.environ, "PULL_AT": word}
    done = subprocess.run(command, cwd=project.pytester.path, env=environment, capture_output=True, check=False)
    return done.returncode


def progress(project: Project) -> list[str]:
    """Return what was reported since the last call."""
    log = project.pytester.path / "progress.log"
    lines = log.read_text().splitlines()
    log.unlink()
    return lines


def test_a_killed_run_is_taken_up_where_it_was_and_promotes_once(plugged: Project) -> None:
    registry = SqliteRegistry(plugged.pytester.path / "registry.db")
    assert gate(plugged, "epoch 6/8") == -signal.SIGKILL
    assert "epoch 6/8" in progress(plugged)[-1]
    assert not registry.path.exists()

    assert gate(plugged, "after propose") == -signal.SIGKILL
    trained = [line for line in progress(plugged) if "epoch" in line]
    assert "resumed after epoch" in trained[0]
    assert "epoch 8/8" in trained[-1]
    assert not registry.verify()
    assert not registry.history(), "a promotion that was killed before it was made has not been made"

    assert gate(plugged, "after promote") == -signal.SIGKILL
    assert not [line for line in progress(plugged) if "epoch" in line], "what was trained is not trained again"
    (promotion,) = registry.history()

    assert gate(plugged, "") == 0
    assert registry.history() == (promotion,), "what stands already is not promoted twice"
    assert not registry.verify()
    current = registry.current("digits", "staging")
    assert current is not None
    assert open_artifact(current.path).digest == current.digest == promotion.to_digest
