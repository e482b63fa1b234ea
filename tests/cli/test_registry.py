from __future__ import annotations

import getpass
from collections.abc import Sequence
from pathlib import Path

import pytest

from deploycheck.cli import main
from deploycheck.registry.sqlite import SqliteRegistry
from deploycheck.store import open_artifact
from tests.cli.asking import Captured, digest, flip, refused
from tests.registry.processes import NOW, made, move


def test_the_history_is_a_line_a_move_oldest_first(registry: SqliteRegistry, capsys: Captured) -> None:
    assert main(["registry", "history"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"1  {NOW}  promote    digits@staging  {digest('a')[:19]}  first  by ada"
    assert second == f"2  {NOW}  promote    digits@staging  {digest('b')[:19]}  from {digest('a')[:19]}  by ada"


def test_the_history_of_one_model_is_its_own(registry: SqliteRegistry, folder: Path, capsys: Captured) -> None:
    version = registry.propose("letters", made(folder, "c"), b"{}", NOW)
    registry.promote("letters", "staging", version.digest, expected=None, actor="ada", time=NOW)
    for model, moves in (("digits", 2), ("letters", 1)):
        assert main(["registry", "history", model]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == moves
        assert all(f"{model}@staging" in line for line in lines)


def test_current_is_the_digest_and_the_registrys_own_copy(registry: SqliteRegistry, capsys: Captured) -> None:
    assert main(["registry", "current", "digits", "staging"]) == 0
    shown, path = capsys.readouterr().out.splitlines()
    assert shown == digest("b")
    assert open_artifact(Path(path)).digest == shown
    assert Path(path).parent == registry.files.artifacts


def test_rolling_back_points_at_the_version_before_and_is_in_the_history(
    registry: SqliteRegistry, capsys: Captured
) -> None:
    assert main(["registry", "roll-back", "digits", "staging"]) == 0
    assert capsys.readouterr().out == f"digits@staging is {digest('a')} again\n"
    *_, move_back = registry.history()
    assert (move_back.reason, move_back.from_digest, move_back.to_digest) == ("roll_back", digest("b"), digest("a"))
    assert move_back.actor == getpass.getuser()
    assert main(["registry", "history"]) == 0
    assert "  roll_back  digits@staging  " in capsys.readouterr().out.splitlines()[2]


def test_a_whole_registry_is_verified(registry: SqliteRegistry, capsys: Captured) -> None:
    assert main(["registry", "verify"]) == 0
    assert capsys.readouterr().out == "the history is consistent, and every promoted artifact is intact\n"


def test_verify_names_what_is_damaged_and_counts_it(registry: SqliteRegistry, capsys: Captured) -> None:
    for content in "ab":
        flip(registry.files.artifacts / digest(content).removeprefix("sha256:") / "weights.bin")
    assert main(["registry", "verify"]) == 1
    said = capsys.readouterr()
    assert said.out == "problems: 2\n"
    for content in "ab":
        assert f"{digest(content).removeprefix('sha256:')}: weights.bin is damaged" in said.err


@pytest.mark.parametrize(
    ("named", "location"),
    [
        (["--registry", "sqlite:team/models.db"], "team/models.db"),
        (["--cache", "elsewhere"], "elsewhere/registry.db"),
        (["--registry", "sqlite:models.db", "--cache", "elsewhere"], "models.db"),
    ],
)
def test_another_registry_is_looked_at_where_one_is_named(
    registry: SqliteRegistry, folder: Path, capsys: Captured, named: Sequence[str], location: str
) -> None:
    other = SqliteRegistry(folder / location)
    move(other, made(folder, "c"))
    assert main(["registry", *named, "current", "digits", "staging"]) == 0
    assert capsys.readouterr().out.startswith(digest("c"))
    assert main(["registry", *named, "history"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    move(other, made(folder, "d"))
    assert main(["registry", *named, "roll-back", "digits", "staging"]) == 0
    assert [len(each.history()) for each in (registry, other)] == [2, 3]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["current", "letters", "staging"], "letters@staging was never promoted"),
        (["current", "digits", "production"], "digits@production was never promoted"),
        (["current", "Digits!", "staging"], "'Digits!' is not a name for a model or an alias"),
        (["roll-back", "letters", "staging"], "staging was never promoted: there is nothing to go back to"),
        (["roll-back", "digits", "production"], "production was never promoted: there is nothing to go back to"),
    ],
)
def test_what_was_never_promoted_is_an_error(
    registry: SqliteRegistry, capsys: Captured, arguments: list[str], says: str
) -> None:
    assert says in refused(capsys, "registry", *arguments)
    assert len(registry.history()) == 2


def test_before_the_first_version_there_is_nothing_to_roll_back_to(registry: SqliteRegistry, capsys: Captured) -> None:
    assert main(["registry", "roll-back", "digits", "staging"]) == 0
    capsys.readouterr()
    assert "there is nothing to go back to" in refused(capsys, "registry", "roll-back", "digits", "staging")
    assert len(registry.history()) == 3


def test_a_damaged_version_is_not_rolled_back_to(registry: SqliteRegistry, capsys: Captured) -> None:
    flip(registry.files.artifacts / digest("a").removeprefix("sha256:") / "weights.bin")
    assert "weights.bin is damaged" in refused(capsys, "registry", "roll-back", "digits", "staging")
    assert len(registry.history()) == 2


@pytest.mark.parametrize(
    "action",
    [
        "current digits staging",
        "roll-back digits staging",
        "history",
        "history digits",
        "verify",
    ],
)
@pytest.mark.parametrize("named", [[], ["--registry", "sqlite:typing-eror.db"]], ids=["default", "named"])
def test_a_registry_that_is_not_there_is_an_error_and_is_not_made(
    folder: Path, capsys: Captured, named: list[str], action: str
) -> None:
    refused(capsys, "registry", *named, *action.split())
    assert not list(folder.rglob("*"))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mlflow:http://models", "unknown registry 'mlflow'\n  hint: there are: sqlite"),
        ("sqlite:../models.db", "is outside of"),
        ("sqlite:", "is not the path of a file"),
        ("sqlite:notes.txt", "sqlite says: file is not a database"),
    ],
)
def test_an_unusable_registry_is_an_error(folder: Path, capsys: Captured, url: str, says: str) -> None:
    (folder / "notes.txt").write_text("somebody's notes\n" * 100)
    assert says in refused(capsys, "registry", "--registry", url, "history")
    assert (folder / "notes.txt").read_text().startswith("somebody's notes\n")


def test_an_empty_history_of_a_model_names_the_model(registry: SqliteRegistry, capsys: Captured) -> None:
    assert "the registry in the cache folder: letters was never promoted in it" in refused(
        capsys, "registry", "history", "letters"
    )
