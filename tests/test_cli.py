"""The command, on real registries and real evidence; serving has tests of its own."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from deploycheck.cli import CACHE, main
from deploycheck.evidence import CandidateRecord, Evidence, TargetRecord
from deploycheck.evidence.faces import as_json
from deploycheck.promotion import Decision
from deploycheck.registry.sqlite import SqliteRegistry, open_sqlite
from deploycheck.runner.conclude import promote
from deploycheck.runner.extensions import builtin_extensions
from deploycheck.store import Artifact, open_artifact
from tests.evidence.records import check, evidence, spec
from tests.registry.processes import NOW, made, move

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a project of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def registry(folder: Path) -> SqliteRegistry:
    """Return the registry that is used where none is named, with two promotions: a, then b."""
    registry = open_sqlite("registry.db", folder / CACHE)
    for name in "ab":
        move(registry, made(folder, name))
    return registry


def digest(content: str) -> str:
    return open_artifact(Path("made") / content).digest


def refused(capsys: Captured, *arguments: str) -> str:
    """Run a command that must be refused; return what it said on stderr."""
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert "Traceback" not in said.err
    return said.err


# The registry


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
    assert Path(path).parent == registry.artifacts


def test_rolling_back_points_at_the_version_before_and_is_in_the_history(
    registry: SqliteRegistry, capsys: Captured
) -> None:
    assert main(["registry", "roll-back", "digits", "staging"]) == 0
    assert capsys.readouterr().out == f"digits@staging stands at {digest('a')} again\n"
    *_, move_back = registry.history()
    assert (move_back.reason, move_back.from_digest, move_back.to_digest) == ("roll_back", digest("b"), digest("a"))
    assert move_back.actor == getpass.getuser()
    assert main(["registry", "history"]) == 0
    assert "  roll_back  digits@staging  " in capsys.readouterr().out.splitlines()[2]


def test_a_whole_registry_is_verified(registry: SqliteRegistry, capsys: Captured) -> None:
    assert main(["registry", "verify"]) == 0
    assert capsys.readouterr().out == "the history adds up, and every promoted artifact is whole\n"


def test_verify_names_what_is_damaged_and_counts_it(registry: SqliteRegistry, capsys: Captured) -> None:
    for content in "ab":
        flip(registry.artifacts / digest(content).removeprefix("sha256:") / "weights.bin")
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
        (["current", "Digits!", "staging"], "'Digits!' is no name for a model or an alias"),
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
    flip(registry.artifacts / digest("a").removeprefix("sha256:") / "weights.bin")
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
        ("sqlite:../models.db", "lies outside of"),
        ("sqlite:", "is no path of a file"),
        ("sqlite:notes.txt", "sqlite says: file is not a database"),
    ],
)
def test_what_is_no_registry_is_an_error(folder: Path, capsys: Captured, url: str, says: str) -> None:
    (folder / "notes.txt").write_text("somebody's notes\n" * 100)
    assert says in refused(capsys, "registry", "--registry", url, "history")
    assert (folder / "notes.txt").read_text().startswith("somebody's notes\n")


# Promotion on evidence


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def promotable(artifact: Artifact, registry: str | None = None) -> Evidence:
    """Return the evidence of a run in which every check passed on an artifact."""
    chosen = CandidateRecord(variant="int8", artifact=artifact.digest, path=str(artifact.path), size=20)
    target = TargetRecord(registry=registry, model="digits", alias="staging")
    return evidence(spec(check(artifact=artifact.digest), chosen=chosen, target=target))


def written(document: Evidence) -> str:
    Path("evidence.json").write_text(as_json(document))
    return "evidence.json"


def test_what_is_promotable_is_promoted_with_its_evidence(
    registry: SqliteRegistry, folder: Path, capsys: Captured
) -> None:
    artifact = made(folder, "c")
    document = promotable(artifact)
    assert main(["promote", written(document)]) == 0
    current = registry.current("digits", "staging")
    assert current is not None
    assert capsys.readouterr().out.splitlines() == [
        "specs/digits.yaml",
        f"  promoted: int8 is now digits@staging ({artifact.digest[:19]}) in {registry.path}",
        f"  it lies in {current.path}",
    ]
    assert current.digest == artifact.digest
    kept = registry.evidence / f"{current.evidence_digest.removeprefix('sha256:')}.json"
    assert Evidence.model_validate_json(kept.read_bytes()) == document
    assert registry.history()[-1].from_digest == digest("b")


def test_promoting_again_on_the_same_evidence_moves_nothing(folder: Path) -> None:
    path = written(promotable(made(folder, "a"), "sqlite:models.db"))
    assert [main(["promote", path]) for _ in range(2)] == [0, 0]
    assert len(SqliteRegistry(folder / "models.db").history()) == 1


def test_the_registry_that_the_spec_names_is_used_and_not_the_caches(folder: Path, registry: SqliteRegistry) -> None:
    assert main(["promote", written(promotable(made(folder, "c"), "sqlite:models.db"))]) == 0
    assert SqliteRegistry(folder / "models.db").current("digits", "staging") is not None
    assert len(registry.history()) == 2


def test_an_export_that_can_no_longer_be_loaded_is_not_promoted(
    registry: SqliteRegistry, folder: Path, capsys: Captured
) -> None:
    artifact = made(folder, "c")
    manifest = artifact.path / "manifest.json"
    written_down = json.loads(manifest.read_bytes())
    manifest.write_text(json.dumps({**written_down, "meta": {"loadable_until": "2024-01-31"}}))
    assert main(["promote", written(promotable(artifact))]) == 1
    assert "the exported program could be loaded until 2024-01-31" in capsys.readouterr().out
    assert len(registry.history()) == 2


def test_a_flipped_byte_in_the_artifact_promotes_nothing(
    registry: SqliteRegistry, folder: Path, capsys: Captured
) -> None:
    artifact = made(folder, "c")
    path = written(promotable(artifact))
    flip(artifact.path / "weights.bin")
    assert main(["promote", path]) == 1
    said = capsys.readouterr()
    assert "withheld" in said.out
    assert "weights.bin is damaged: expected sha256" in said.out
    assert "Traceback" not in said.err
    assert len(registry.history()) == 2
    assert registry.verify() == ()


def test_a_whole_artifact_that_is_not_the_one_checked_promotes_nothing(
    registry: SqliteRegistry, folder: Path, capsys: Captured
) -> None:
    checked, other = made(folder, "c"), made(folder, "d")
    document = promotable(checked)
    (only,) = document.specs
    assert only.chosen is not None
    swapped = only.chosen.model_copy(update={"path": str(other.path)})
    document = document.model_copy(update={"specs": (only.model_copy(update={"chosen": swapped}),)})
    assert main(["promote", written(document)]) == 1
    assert f"the artifact is {other.digest}, the checks were run on {checked.digest}" in capsys.readouterr().out
    assert len(registry.history()) == 2


def test_an_artifact_that_is_gone_promotes_nothing(registry: SqliteRegistry, folder: Path, capsys: Captured) -> None:
    artifact = made(folder, "c")
    artifact.path.rename(folder / "gone")
    assert main(["promote", written(promotable(artifact))]) == 1
    assert "there is no such folder" in capsys.readouterr().out
    assert len(registry.history()) == 2


def test_what_was_withheld_is_not_promoted(registry: SqliteRegistry, folder: Path, capsys: Captured) -> None:
    (only,) = promotable(made(folder, "c")).specs
    withheld = only.model_copy(update={"decision": Decision.WITHHELD, "reasons": ("train::accuracy: fail",)})
    assert main(["promote", written(evidence(withheld))]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "specs/digits.yaml",
        "  withheld: 1 pass",
        "    train::accuracy: fail",
    ]
    assert len(registry.history()) == 2


def test_of_several_specs_one_that_cannot_be_promoted_does_not_hold_up_the_others(
    folder: Path, capsys: Captured
) -> None:
    whole, damaged = made(folder, "a"), made(folder, "b")
    flip(damaged.path / "weights.bin")
    specs = [
        *promotable(damaged, "sqlite:one.db").specs,
        *promotable(whole, "sqlite:two.db").specs,
    ]
    assert main(["promote", written(evidence(*specs))]) == 1
    assert not (folder / "one.db").exists()
    current = SqliteRegistry(folder / "two.db").current("digits", "staging")
    assert current is not None
    assert current.digest == whole.digest


def test_evidence_of_a_promotion_long_undone_does_not_claim_that_it_stands(
    registry: SqliteRegistry, folder: Path, capsys: Captured
) -> None:
    moved, _ = promote(promotable(made(folder, "c")), folder, folder / CACHE, builtin_extensions())
    path = written(moved)
    assert main(["registry", "roll-back", "digits", "staging"]) == 0
    capsys.readouterr()
    code = main(["promote", path])
    current = registry.current("digits", "staging")
    assert current is not None
    assert code == 1 or current.digest == digest("c")


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"not evidence", b'{"format": "junit"}', b"\xff\xfe\x00", b"[" * 10_000, None],
    ids=["empty", "list", "text", "other", "binary", "deep", "missing"],
)
def test_a_file_that_is_no_evidence_is_named_and_moves_nothing(
    registry: SqliteRegistry, capsys: Captured, content: bytes | None
) -> None:
    if content is not None:
        Path("report.json").write_bytes(content)
    assert refused(capsys, "promote", "report.json").startswith("error: report.json: is no evidence: ")
    assert len(registry.history()) == 2


def without_run(document: dict[str, Any]) -> None:
    del document["run"]


def of_a_later_version(document: dict[str, Any]) -> None:
    document["version"] = 2


@pytest.mark.parametrize(("break_it", "says"), [(without_run, "run"), (of_a_later_version, "version")])
def test_what_is_wrong_with_evidence_is_said(folder: Path, capsys: Captured, break_it: Any, says: str) -> None:
    document = json.loads(as_json(promotable(made(folder, "c"))))
    break_it(document)
    Path("e.json").write_text(json.dumps(document))
    assert says in refused(capsys, "promote", "e.json")


# Schemas


@pytest.mark.parametrize(("of", "title"), [("spec", "Tree"), ("evidence", "Evidence")])
def test_a_schema_is_printed_that_is_one(capsys: Captured, of: str, title: str) -> None:
    assert main(["schema", of]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == title


def test_the_printed_schema_takes_evidence_and_nothing_else(folder: Path, capsys: Captured) -> None:
    assert main(["schema", "evidence"]) == 0
    validator = jsonschema.Draft202012Validator(json.loads(capsys.readouterr().out))
    document = json.loads(as_json(promotable(made(folder, "c"))))
    validator.validate(document)
    assert not validator.is_valid({**document, "surprise": 1})


# Usage


@pytest.mark.parametrize(
    "arguments",
    [
        "", "nonsense", "registry", "registry nonsense", "registry current", "registry current digits",
        "registry roll-back digits staging too-much", "registry history --registry sqlite:a.db", "promote",
        "schema", "schema nothing", "serve", "serve --port nine",
    ],
)  # fmt: skip
def test_a_command_called_wrongly_says_how_it_is_called(capsys: Captured, arguments: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("usage: deploycheck")


@pytest.mark.parametrize("arguments", ["--help", "registry --help", "registry current --help", "promote --help"])
def test_help_is_no_error(capsys: Captured, arguments: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("usage: deploycheck")


# As a process


def run(*arguments: str, stdout: int = subprocess.PIPE, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploycheck.cli", *arguments]
    inherited: Mapping[str, str] = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, env={**inherited, **environment}, check=False
    )


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
)  # fmt: skip
def test_a_reader_that_has_seen_enough_is_no_error(
    registry: SqliteRegistry, arguments: str, environment: dict[str, str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run(*arguments.split(), stdout=writing, **environment)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
