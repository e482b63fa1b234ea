from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from deploycheck.cli import main
from deploycheck.registry.sqlite import SqliteRegistry
from deploycheck.steps import baseline
from tests.cli.asking import Captured, refused, run


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "nonsense",
        "registry",
        "registry nonsense",
        "registry current",
        "registry current digits",
        "registry roll-back digits staging too-much",
        "registry history --registry sqlite:a.db",
        "promote",
        "lint",
        "noise",
        "schema",
        "schema nothing",
        "serve",
        "serve --port nine",
    ],
)
def test_a_command_called_wrongly_says_how_it_is_called(capsys: Captured, arguments: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("usage: deploycheck")


@pytest.mark.parametrize(
    "arguments", ["--help", "registry --help", "registry current --help", "promote --help", "serve --help"]
)
def test_help_is_not_an_error(capsys: Captured, arguments: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("usage: deploycheck")


def test_options_of_the_server_are_given_before_its_artifact_or_after(capsys: Captured) -> None:
    for arguments in (["--port", "0", "nowhere"], ["nowhere", "--port", "0"]):
        assert main(["serve", *arguments]) == 1
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["event"] == "failed"


def test_control_characters_never_reach_the_terminal(folder: Path, capsys: Captured) -> None:
    said = refused(capsys, "promote", "\x1b[2Jevidence.json")
    assert said.startswith(r"error: \x1b[2Jevidence.json: ")


def test_an_interrupt_ends_the_command_with_its_own_code(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(baseline, "open_registry", interrupt)
    assert main(["registry", "history"]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_as_a_process_it_answers_in_plain_text_with_its_exit_code(registry: SqliteRegistry) -> None:
    done = run("registry", "history", FORCE_COLOR="1", TERM="xterm-256color")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 2
    failed = run("registry", "current", "letters", "staging", FORCE_COLOR="1", TERM="xterm-256color")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == "error: letters@staging was never promoted\n"
    assert "\x1b" not in done.stdout + failed.stderr


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        ("schema spec", {}),  # longer than what is buffered
        ("registry history", {"PYTHONUNBUFFERED": "1"}),
        ("registry history", {}),
    ],
)
def test_a_reader_that_has_seen_enough_is_not_an_error(
    registry: SqliteRegistry, arguments: str, environment: dict[str, str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run(*arguments.split(), stdout=writing, **environment)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
