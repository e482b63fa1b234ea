from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from deploycheck.cli import main
from deploycheck.evidence import Evidence, TargetRecord
from deploycheck.evidence.forms.json import as_json
from deploycheck.promotion import Decision
from deploycheck.registry.sqlite import SqliteRegistry
from deploycheck.runner.conclude import promote
from deploycheck.runner.installed import extensions_from
from deploycheck.store import write_manifest
from tests.cli.asking import Captured, digest, flip, promotable, recorded, refused, stored, written
from tests.evidence.records import evidence
from tests.registry.processes import made


def test_what_is_promotable_is_promoted_with_its_evidence(
    registry: SqliteRegistry, folder: Path, capsys: Captured
) -> None:
    artifact = stored("c")
    document = promotable(artifact, replaces=digest("b"))
    assert main(["promote", recorded(document)]) == 0
    current = registry.current("digits", "staging")
    assert current is not None
    assert capsys.readouterr().out.splitlines() == [
        "specs/digits.yaml",
        f"  promoted: int8 is now digits@staging ({artifact.digest[:19]}) in .deploycheck/registry.db",
        f"  stored in {current.path.relative_to(folder)}",
    ]
    assert current.digest == artifact.digest
    kept = registry.files.evidence / f"{current.evidence_digest.removeprefix('sha256:')}.json"
    assert Evidence.model_validate_json(kept.read_bytes()) == document
    assert registry.history()[-1].from_digest == digest("b")


def test_promoting_again_on_the_same_evidence_moves_nothing(folder: Path) -> None:
    path = recorded(promotable(stored("a"), "sqlite:models.db"))
    assert [main(["promote", path]) for _ in range(2)] == [0, 0]
    assert len(SqliteRegistry(folder / "models.db").history()) == 1


def test_the_registry_that_the_spec_names_is_used_and_not_the_caches(folder: Path, registry: SqliteRegistry) -> None:
    assert main(["promote", recorded(promotable(stored("c"), "sqlite:models.db"))]) == 0
    assert SqliteRegistry(folder / "models.db").current("digits", "staging") is not None
    assert len(registry.history()) == 2


def test_an_export_that_can_no_longer_be_loaded_is_not_promoted(
    registry: SqliteRegistry, folder: Path, capsys: Captured
) -> None:
    artifact = stored("c", {"loadable_until": "2024-01-31"})
    assert main(["promote", recorded(promotable(artifact, replaces=digest("b")))]) == 1
    assert "which could be loaded until 2024-01-31" in capsys.readouterr().err
    assert len(registry.history()) == 2


def test_a_flipped_byte_in_the_artifact_promotes_nothing(
    registry: SqliteRegistry, folder: Path, capsys: Captured
) -> None:
    artifact = stored("c")
    path = recorded(promotable(artifact, replaces=digest("b")))
    flip(artifact.path / "weights.bin")
    assert main(["promote", path]) == 1
    said = capsys.readouterr()
    assert "withheld" in said.out
    assert "error: specs/digits.yaml: " in said.err
    assert "weights.bin is damaged: expected sha256" in said.err
    assert "Traceback" not in said.err
    assert len(registry.history()) == 2
    assert registry.verify() == ()


def test_a_whole_artifact_that_is_not_the_one_checked_promotes_nothing(
    registry: SqliteRegistry, folder: Path, capsys: Captured
) -> None:
    checked, other = stored("c"), made(folder, "d")
    path = recorded(promotable(checked, replaces=digest("b")))
    shutil.rmtree(checked.path)
    shutil.copytree(other.path, checked.path)
    (checked.path / "manifest.json").unlink()
    write_manifest(checked.path, "model", checked.key, {})
    assert main(["promote", path]) == 1
    assert f"the artifact is {other.digest}, the checks were run on {checked.digest}" in capsys.readouterr().err
    assert len(registry.history()) == 2


def test_an_artifact_outside_of_the_store_is_not_promoted(
    registry: SqliteRegistry, folder: Path, capsys: Captured
) -> None:
    assert main(["promote", recorded(promotable(made(folder, "c"), replaces=digest("b")))]) == 1
    assert "the artifact of int8 is gone" in capsys.readouterr().err
    assert len(registry.history()) == 2


def test_evidence_that_no_run_recorded_promotes_nothing(
    registry: SqliteRegistry, folder: Path, capsys: Captured
) -> None:
    document = promotable(stored("c"), replaces=digest("b"))
    recorded(document)
    (only,) = document.specs
    edited = document.model_copy(update={"specs": (only.model_copy(update={"name": "other"}),)})
    assert main(["promote", written(edited)]) == 1
    assert "error: specs/digits.yaml: this evidence is not recorded in the registry" in capsys.readouterr().err
    assert len(registry.history()) == 2
    assert (folder / "evidence.json").exists()


def test_an_artifact_that_is_gone_promotes_nothing(registry: SqliteRegistry, folder: Path, capsys: Captured) -> None:
    artifact = stored("c")
    artifact.path.rename(folder / "gone")
    assert main(["promote", recorded(promotable(artifact, replaces=digest("b")))]) == 1
    assert "the artifact of int8 is gone" in capsys.readouterr().err
    assert len(registry.history()) == 2


def test_what_was_withheld_is_not_promoted(registry: SqliteRegistry, folder: Path, capsys: Captured) -> None:
    (only,) = promotable(stored("c"), replaces=digest("b")).specs
    reasons = ("train::accuracy: fail", "int8: its checks were run on 2 different artifacts")
    fields = {"decision": Decision.WITHHELD, "reasons": reasons, "other_reasons": reasons[1:]}
    withheld = only.model_copy(update=fields)
    assert main(["promote", written(evidence(withheld))]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "specs/digits.yaml",
        "  withheld: 1 pass",
        "    int8: its checks were run on 2 different artifacts",
    ]
    assert len(registry.history()) == 2


def test_of_several_specs_one_that_cannot_be_promoted_does_not_hold_up_the_others(
    folder: Path, capsys: Captured
) -> None:
    whole, damaged = stored("a"), stored("b")
    flip(damaged.path / "weights.bin")
    specs = [
        *promotable(damaged, "sqlite:one.db").specs,
        *promotable(whole, "sqlite:two.db").specs,
    ]
    document = promotable(whole).model_copy(update={"specs": tuple(specs)})
    assert main(["promote", recorded(document)]) == 1
    assert SqliteRegistry(folder / "one.db").history() == ()
    current = SqliteRegistry(folder / "two.db").current("digits", "staging")
    assert current is not None
    assert current.digest == whole.digest


def test_evidence_of_a_run_that_promoted_leaves_nothing_to_do(
    registry: SqliteRegistry, folder: Path, capsys: Captured
) -> None:
    moved, _ = promote(
        promotable(stored("c"), replaces=digest("b")), folder / ".deploycheck", extensions_from((), folder)
    )
    assert main(["promote", written(moved)]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[1].startswith("  promoted: int8 is now digits@staging")
    assert said.err == ""
    assert len(registry.history()) == 3


def test_a_promotion_that_is_refused_says_why(folder: Path, capsys: Captured) -> None:
    moved, _ = promote(promotable(stored("c")), folder / ".deploycheck", extensions_from((), folder))
    (only,) = moved.specs
    elsewhere = TargetRecord(registry="nowhere:models", model="digits", alias="staging")
    assert main(["promote", written(evidence(only.model_copy(update={"target": elsewhere})))]) == 1
    said = capsys.readouterr()
    assert "promoted:" not in said.out
    assert "unknown registry 'nowhere'" in said.err


def test_evidence_of_a_promotion_long_undone_does_not_claim_that_it_stands(
    registry: SqliteRegistry, folder: Path, capsys: Captured
) -> None:
    moved, _ = promote(
        promotable(stored("c"), replaces=digest("b")), folder / ".deploycheck", extensions_from((), folder)
    )
    path = written(moved)
    assert main(["registry", "roll-back", "digits", "staging"]) == 0
    capsys.readouterr()
    code = main(["promote", path])
    current = registry.current("digits", "staging")
    assert current is not None
    assert code == 1 or current.digest == digest("c")


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"not evidence", b'{"format": "junit"}', b"\xff\xfe\x00", b"[" * 10_000],
    ids=["empty", "list", "text", "other", "binary", "deep"],
)
def test_a_file_that_is_not_evidence_is_named_and_moves_nothing(
    registry: SqliteRegistry, capsys: Captured, content: bytes
) -> None:
    Path("report.json").write_bytes(content)
    said = refused(capsys, "promote", "report.json")
    assert said.startswith("error: report.json: is not the evidence of a run: ")
    assert len(registry.history()) == 2


def test_a_file_that_is_not_there_is_named(capsys: Captured) -> None:
    assert refused(capsys, "promote", "report.json").startswith("error: report.json: can't be read: No such file")


def without_run(document: dict[str, Any]) -> None:
    del document["run"]


def of_a_later_version(document: dict[str, Any]) -> None:
    document["version"] = 2


@pytest.mark.parametrize(("break_it", "says"), [(without_run, "run"), (of_a_later_version, "version")])
def test_what_is_wrong_with_evidence_is_said(folder: Path, capsys: Captured, break_it: Any, says: str) -> None:
    document = json.loads(as_json(promotable(stored("c"))))
    break_it(document)
    Path("e.json").write_text(json.dumps(document))
    assert says in refused(capsys, "promote", "e.json")
