from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploycheck.registry import RegistryError, StalePromotion
from deploycheck.registry.ledger import GENESIS
from deploycheck.registry.sqlite import SqliteRegistry, check_sqlite, open_sqlite
from deploycheck.store import Artifact, CorruptArtifact, open_artifact
from tests.registry.fail_points import kill_everywhere
from tests.registry.processes import (
    NOW,
    current_digest,
    first_promotion_until_killed,
    made,
    move,
    promote_together,
    promote_until_killed,
    roll_back_until_killed,
)


def altered(registry: SqliteRegistry, statement: str) -> None:
    """Change the database behind the registry's back."""
    database = sqlite3.connect(registry.path, isolation_level=None)
    assert database.execute(statement).rowcount > 0
    database.close()


# Promotion


def test_an_alias_points_at_nothing_before_a_promotion(registry: SqliteRegistry, tmp_path: Path) -> None:
    assert registry.current("digits", "staging") is None
    assert registry.history() == ()
    assert registry.verify() == ()
    assert not list(tmp_path.iterdir())
    registry.propose("digits", made(tmp_path, "a"), b"{}", NOW)
    assert registry.current("digits", "staging") is None


def test_a_promotion_points_the_alias_at_the_registrys_own_verified_copy(
    registry: SqliteRegistry, tmp_path: Path
) -> None:
    artifact = made(tmp_path, "a")
    version = registry.propose("digits", artifact, b'{"run": 1}', NOW)
    promotion = registry.promote("digits", "staging", version.digest, expected=None, actor="ada", time=NOW)
    assert (promotion.seq, promotion.from_digest, promotion.to_digest) == (1, None, artifact.digest)
    assert (promotion.actor, promotion.time, promotion.reason) == ("ada", NOW, "promote")
    assert registry.current("digits", "staging") == version
    assert version.path.parent == tmp_path / "registry.artifacts"
    assert open_artifact(version.path).digest == artifact.digest
    evidence = tmp_path / "registry.evidence" / f"{version.evidence_digest.removeprefix('sha256:')}.json"
    assert evidence.read_bytes() == b'{"run": 1}'
    assert version.evidence_digest == f"sha256:{hashlib.sha256(evidence.read_bytes()).hexdigest()}"


def test_what_was_never_proposed_is_not_promoted(registry: SqliteRegistry, tmp_path: Path) -> None:
    digest = registry.propose("digits", made(tmp_path, "a"), b"{}", NOW).digest
    with pytest.raises(RegistryError, match="was never proposed for letters"):
        registry.promote("letters", "staging", digest, expected=None, actor="ada", time=NOW)
    assert registry.history() == ()


def test_a_promotion_on_what_is_no_longer_there_is_stale_and_names_who_moved_it(
    registry: SqliteRegistry, tmp_path: Path
) -> None:
    first = move(registry, made(tmp_path, "a"))
    late = registry.propose("digits", made(tmp_path, "b"), b"{}", NOW).digest
    with pytest.raises(StalePromotion, match=rf"points at {first}, expected None, moved there by ada at"):
        registry.promote("digits", "staging", late, expected=None, actor="bob", time=NOW)
    assert current_digest(registry) == first


def test_promoting_the_current_version_changes_nothing(registry: SqliteRegistry, tmp_path: Path) -> None:
    digest = move(registry, made(tmp_path, "a"))
    again = registry.promote("digits", "staging", digest, expected=None, actor="bob", time="later")
    assert registry.history() == (again,)
    assert again.actor == "ada"


def test_a_version_promoted_again_has_its_new_evidence(registry: SqliteRegistry, tmp_path: Path) -> None:
    one, two = made(tmp_path, "a"), made(tmp_path, "b")
    for artifact, evidence in ((one, b"1"), (two, b"2"), (one, b"3")):
        move(registry, artifact, evidence=evidence)
    recorded = [promotion.evidence_digest for promotion in registry.history()]
    assert recorded == [f"sha256:{hashlib.sha256(evidence).hexdigest()}" for evidence in (b"1", b"2", b"3")]


def test_a_proposal_alone_does_not_change_the_evidence_of_a_promoted_version(
    registry: SqliteRegistry, tmp_path: Path
) -> None:
    artifact = made(tmp_path, "a")
    move(registry, artifact, evidence=b"of the promotion")
    registry.propose("digits", artifact, b"of a later run", NOW)
    current = registry.current("digits", "staging")
    assert current is not None
    assert current.evidence_digest == f"sha256:{hashlib.sha256(b'of the promotion').hexdigest()}"


def test_a_registry_that_is_not_there_promotes_nothing_and_makes_nothing(
    registry: SqliteRegistry, tmp_path: Path
) -> None:
    with pytest.raises(RegistryError, match="nothing was ever proposed"):
        registry.promote("digits", "staging", "sha256:" + "ab" * 32, expected=None, actor="ada", time=NOW)
    with pytest.raises(RegistryError, match="nothing was ever proposed"):
        registry.roll_back("digits", "staging", actor="ada", time=NOW)
    assert not list(tmp_path.iterdir())


def test_models_and_aliases_move_apart(registry: SqliteRegistry, tmp_path: Path) -> None:
    one, two = made(tmp_path, "a"), made(tmp_path, "b")
    move(registry, one, "staging")
    move(registry, two, "production")
    registry.propose("letters", two, b"{}", NOW)
    registry.promote("letters", "staging", two.digest, expected=None, actor="ada", time=NOW)
    assert (current_digest(registry, "staging"), current_digest(registry, "production")) == (one.digest, two.digest)
    assert [promotion.model for promotion in registry.history("letters")] == ["letters"]
    assert len(registry.history()) == 3
    assert registry.verify() == ()


@pytest.mark.parametrize("name", ["", "Digits", "../x", ".hidden", "a b", "a/b", "a" * 65, "a\n"])
def test_an_invalid_name_is_refused(registry: SqliteRegistry, tmp_path: Path, name: str) -> None:
    with pytest.raises(RegistryError, match="is not a name"):
        registry.propose(name, made(tmp_path, "a"), b"{}", NOW)
    with pytest.raises(RegistryError, match="is not a name"):
        registry.current("digits", name)


# The way back


def test_rolling_back_goes_further_each_time_and_ends_at_the_first(registry: SqliteRegistry, tmp_path: Path) -> None:
    a, b, c = (move(registry, made(tmp_path, name), evidence=name.encode()) for name in "abc")
    back = registry.roll_back("digits", "staging", actor="bob", time=NOW)
    assert (back.from_digest, back.to_digest, back.reason, back.actor) == (c, b, "roll_back", "bob")
    assert back.evidence_digest == f"sha256:{hashlib.sha256(b'b').hexdigest()}"
    registry.roll_back("digits", "staging", actor="bob", time=NOW)
    assert current_digest(registry) == a
    with pytest.raises(RegistryError, match="points at its first version: there is nothing to go back to"):
        registry.roll_back("digits", "staging", actor="bob", time=NOW)
    assert current_digest(registry) == a
    assert registry.verify() == ()


def test_what_was_rolled_back_is_not_on_the_way_back_again(registry: SqliteRegistry, tmp_path: Path) -> None:
    a, _ = move(registry, made(tmp_path, "a")), move(registry, made(tmp_path, "b"))
    registry.roll_back("digits", "staging", actor="bob", time=NOW)
    move(registry, made(tmp_path, "c"))
    registry.roll_back("digits", "staging", actor="bob", time=NOW)
    assert current_digest(registry) == a


@pytest.mark.parametrize(("day", "expired"), [("2026-11-23", False), ("2026-11-24", True)])
def test_rolling_back_to_an_export_that_expired_is_refused_with_its_date(
    registry: SqliteRegistry, tmp_path: Path, day: str, expired: bool
) -> None:
    first = move(registry, made(tmp_path, "a", {"loadable_until": "2026-11-23"}))
    second = move(registry, made(tmp_path, "b"))
    time = f"{day}T15:00:00+00:00"
    if expired:
        with pytest.raises(RegistryError, match="which could be loaded until 2026-11-23"):
            registry.roll_back("digits", "staging", actor="bob", time=time)
    else:
        registry.roll_back("digits", "staging", actor="bob", time=time)
    assert current_digest(registry) == (second if expired else first)
    assert len(registry.history()) == (2 if expired else 3)


def test_promoting_an_export_that_expired_is_refused_and_the_newest_that_loads_is_named(
    registry: SqliteRegistry, tmp_path: Path
) -> None:
    lasting = move(registry, made(tmp_path, "a"))
    last = move(registry, made(tmp_path, "b", {"loadable_until": "2026-11-23"}))
    late = registry.propose("digits", made(tmp_path, "c", {"loadable_until": "2026-11-23"}), b"{}", NOW).digest
    time = "2026-11-24T15:00:00+00:00"
    with pytest.raises(RegistryError, match=rf"{late}, which could be loaded until 2026-11-23(.|\n)*{lasting}"):
        registry.promote("digits", "staging", late, expected=last, actor="ada", time=time)
    assert current_digest(registry) == last


def test_going_back_to_a_damaged_version_names_the_newest_that_loads(registry: SqliteRegistry, tmp_path: Path) -> None:
    first, damaged, last = (move(registry, made(tmp_path, name)) for name in "abc")
    (registry.files.artifacts / damaged.removeprefix("sha256:") / "weights.bin").write_bytes(b"other")
    with pytest.raises(CorruptArtifact, match=rf"weights.bin is damaged(.|\n)*can be loaded is {first}"):
        registry.roll_back("digits", "staging", actor="ada", time=NOW)
    assert current_digest(registry) == last


def test_promoting_an_export_whose_last_day_is_not_a_date_is_refused(registry: SqliteRegistry, tmp_path: Path) -> None:
    with pytest.raises(CorruptArtifact, match="loadable_until is 'soon', expected a date"):
        move(registry, made(tmp_path, "a", {"loadable_until": "soon"}))
    assert current_digest(registry) is None


def test_an_alias_never_promoted_has_no_way_back(registry: SqliteRegistry, tmp_path: Path) -> None:
    move(registry, made(tmp_path, "a"), "production")
    with pytest.raises(RegistryError, match="staging was never promoted"):
        registry.roll_back("digits", "staging", actor="bob", time=NOW)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["a", "b", "c", "back"]), max_size=12))
def test_any_moves_leave_the_alias_where_a_stack_of_promotions_would(
    tmp_path_factory: pytest.TempPathFactory, moves: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("registry")
    registry = SqliteRegistry(folder / "registry.db")
    artifacts = {name: made(folder, name) for name in "abc"}
    stack: list[str] = []
    for what in moves:
        if what != "back":
            digest = move(registry, artifacts[what])
            if stack[-1:] != [digest]:
                stack.append(digest)
        elif len(stack) > 1:
            registry.roll_back("digits", "staging", actor="bob", time=NOW)
            stack.pop()
        else:
            with pytest.raises(RegistryError, match=r"nothing (to go back to|was ever proposed)"):
                registry.roll_back("digits", "staging", actor="bob", time=NOW)
    assert current_digest(registry) == (stack[-1] if stack else None)
    assert registry.verify() == ()


# Damage


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_an_artifact_damaged_before_it_is_proposed_is_refused(registry: SqliteRegistry, tmp_path: Path) -> None:
    artifact = made(tmp_path, "a")
    flip_a_byte(artifact.path / "weights.bin")
    with pytest.raises(CorruptArtifact, match=r"weights\.bin is damaged"):
        registry.propose("digits", artifact, b"{}", NOW)
    assert not (registry.files.artifacts / artifact.digest.removeprefix("sha256:")).exists()
    assert registry.history() == ()


def test_an_artifact_exchanged_for_another_before_it_is_proposed_is_refused(
    registry: SqliteRegistry, tmp_path: Path
) -> None:
    wanted, other = made(tmp_path, "a"), made(tmp_path, "b")
    wanted.path.rename(tmp_path / "away")
    other.path.rename(wanted.path)
    with pytest.raises(CorruptArtifact, match="changed while it was copied"):
        registry.propose("digits", wanted, b"{}", NOW)


def test_a_flipped_byte_in_a_proposed_artifact_stops_its_promotion(registry: SqliteRegistry, tmp_path: Path) -> None:
    version = registry.propose("digits", made(tmp_path, "a"), b"{}", NOW)
    flip_a_byte(version.path / "weights.bin")
    with pytest.raises(CorruptArtifact, match=r"weights\.bin is damaged"):
        registry.promote("digits", "staging", version.digest, expected=None, actor="ada", time=NOW)
    assert registry.history() == ()


def test_a_flipped_byte_stops_the_way_back_and_is_found_by_verify(registry: SqliteRegistry, tmp_path: Path) -> None:
    move(registry, made(tmp_path, "a"))
    first = registry.current("digits", "staging")
    second = move(registry, made(tmp_path, "b"))
    assert first is not None
    flip_a_byte(first.path / "weights.bin")
    with pytest.raises(CorruptArtifact, match=r"weights\.bin is damaged"):
        registry.roll_back("digits", "staging", actor="bob", time=NOW)
    assert current_digest(registry) == second
    (problem,) = registry.verify()
    assert str(first.path) in problem
    assert "weights.bin is damaged" in problem


def test_a_copy_of_another_artifact_under_this_digest_is_refused(registry: SqliteRegistry, tmp_path: Path) -> None:
    one = registry.propose("digits", made(tmp_path, "a"), b"{}", NOW)
    two = registry.propose("digits", made(tmp_path, "b"), b"{}", NOW)
    one.path.rename(tmp_path / "away")
    two.path.rename(one.path)
    with pytest.raises(CorruptArtifact, match=f"it is {two.digest}, expected {one.digest}"):
        registry.promote("digits", "staging", one.digest, expected=None, actor="ada", time=NOW)


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (lambda path: path.write_bytes(b"[]"), "the evidence was changed"),
        (lambda path: path.unlink(), "the evidence can't be read: No such file"),
    ],
)
def test_evidence_changed_or_gone_is_found_by_verify(
    registry: SqliteRegistry, tmp_path: Path, tamper: Callable[[Path], object], said: str
) -> None:
    move(registry, made(tmp_path, "a"))
    (evidence,) = registry.files.evidence.iterdir()
    tamper(evidence)
    (problem,) = registry.verify()
    assert str(evidence) in problem
    assert said in problem


COLUMNS = ["model", "alias", "from_digest", "evidence_digest", "actor", "time", "reason"]


@pytest.mark.parametrize("column", COLUMNS)
def test_a_change_of_any_column_in_the_history_is_found_by_verify(
    registry: SqliteRegistry, tmp_path: Path, column: str
) -> None:
    for name in "abc":
        move(registry, made(tmp_path, name))
    altered(registry, f"UPDATE promotions SET {column} = 'eve' WHERE seq = 2")
    problems = registry.verify()
    assert any("promotion 2 of" in problem and "was changed" in problem for problem in problems)


def test_a_promotion_whose_hash_was_made_to_fit_is_found_by_the_next(registry: SqliteRegistry, tmp_path: Path) -> None:
    for name in "abc":
        move(registry, made(tmp_path, name))
    forged = replace(registry.history()[1], actor="eve")
    altered(registry, f"UPDATE promotions SET actor = 'eve', hash = '{forged.compute_hash()}' WHERE seq = 2")
    assert registry.verify() == ("promotion 3 of digits doesn't follow the one before it",)


def test_a_promotion_removed_from_the_history_is_found_by_verify(registry: SqliteRegistry, tmp_path: Path) -> None:
    for name in "abc":
        move(registry, made(tmp_path, name))
    altered(registry, "DELETE FROM promotions WHERE seq = 2")
    assert registry.verify() == ("promotion 2 is missing from the history",)


def test_a_history_that_undoes_more_than_was_promoted_can_not_be_rolled_back(
    registry: SqliteRegistry, tmp_path: Path
) -> None:
    for name in "ab":
        move(registry, made(tmp_path, name))
    registry.roll_back("digits", "staging", actor="bob", time=NOW)
    _, _, back = registry.history()
    alone = replace(back, seq=1, previous_hash=GENESIS)
    altered(registry, "DELETE FROM promotions WHERE reason = 'promote'")
    made_to_fit = f"seq = 1, previous_hash = '{GENESIS}', hash = '{alone.compute_hash()}'"
    altered(registry, f"UPDATE promotions SET {made_to_fit}")
    with pytest.raises(RegistryError, match="the history is inconsistent"):
        registry.roll_back("digits", "staging", actor="bob", time=NOW)


ACTIONS: dict[str, Callable[[SqliteRegistry, Artifact], object]] = {
    "current": lambda registry, _: registry.current("digits", "staging"),
    "propose": lambda registry, artifact: registry.propose("digits", artifact, b"{}", NOW),
    "promote": lambda registry, _: registry.promote(
        "digits", "staging", registry.history()[0].to_digest, expected=None, actor="ada", time=NOW
    ),
    "roll back": lambda registry, _: registry.roll_back("digits", "staging", actor="ada", time=NOW),
    "record": lambda registry, _: registry.record_evidence("sha256:2", NOW),
    "has evidence": lambda registry, _: registry.has_evidence("sha256:1"),
}


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
def test_nothing_is_decided_on_a_history_that_was_changed(
    registry: SqliteRegistry, tmp_path: Path, action: Callable[[SqliteRegistry, Artifact], object]
) -> None:
    artifacts = [made(tmp_path, name) for name in "abc"]
    for artifact in artifacts:
        move(registry, artifact)
    registry.record_evidence("sha256:1", NOW)
    last = registry.history()[-1].seq
    altered(registry, "UPDATE evidence SET time = '2026-01-01T00:00:00+00:00' WHERE seq = 1")
    altered(registry, f"UPDATE promotions SET to_digest = '{artifacts[0].digest}' WHERE seq = 2")
    with pytest.raises(RegistryError, match=r"promotion 2 of digits was changed|evidence 1 was changed"):
        action(registry, artifacts[0])
    assert registry.history()[-1].seq == last
    assert "evidence 1 was changed after it was written" in registry.verify()


def test_a_clock_that_was_set_back_adds_nothing(registry: SqliteRegistry, tmp_path: Path) -> None:
    for name in "ab":
        move(registry, made(tmp_path, name))
    earlier = (datetime.fromisoformat(NOW) - timedelta(days=1)).isoformat()
    late = registry.propose("digits", made(tmp_path, "c"), b"{}", NOW).digest
    b = current_digest(registry)
    with pytest.raises(
        RegistryError, match=f"the clock says {re.escape(earlier)}, but the newest entry was written at"
    ):
        registry.promote("digits", "staging", late, expected=b, actor="ada", time=earlier)
    with pytest.raises(RegistryError, match="set the clock of this machine"):
        registry.roll_back("digits", "staging", actor="ada", time=earlier)
    with pytest.raises(RegistryError, match="set the clock of this machine"):
        registry.record_evidence("sha256:1", earlier)
    assert current_digest(registry) == b
    a_little = (datetime.fromisoformat(NOW) - timedelta(minutes=2)).isoformat()
    registry.promote("digits", "staging", late, expected=b, actor="ada", time=a_little)


# Recorded evidence


def test_evidence_is_recorded_once_and_moves_no_alias(registry: SqliteRegistry) -> None:
    assert not registry.has_evidence("sha256:1")
    for digest in ("sha256:1", "sha256:2", "sha256:1"):
        registry.record_evidence(digest, NOW)
    assert [registry.has_evidence(f"sha256:{number}") for number in (1, 2, 3)] == [True, True, False]
    assert registry.history() == registry.verify() == ()


def test_a_registry_from_before_evidence_was_recorded_is_read_and_written(
    registry: SqliteRegistry, tmp_path: Path
) -> None:
    digest = move(registry, made(tmp_path, "a"))
    database = sqlite3.connect(registry.path, isolation_level=None)
    database.execute("DROP TABLE evidence")
    database.close()
    assert current_digest(registry) == digest
    assert not registry.has_evidence("sha256:1")
    registry.record_evidence("sha256:1", NOW)
    assert registry.has_evidence("sha256:1")


# Kills


def reopened(folder: Path, content: str) -> tuple[SqliteRegistry, Artifact]:
    return SqliteRegistry(folder / "registry.db"), open_artifact(folder / "made" / content)


def test_a_promotion_killed_anywhere_leaves_the_alias_at_the_old_or_the_new(tmp_path: Path) -> None:
    folders = kill_everywhere(promote_until_killed, tmp_path)
    assert len(folders) > 25
    seen = set()
    for folder in folders:
        registry, new = reopened(folder, "new")
        old = open_artifact(folder / "made" / "old")
        current = registry.current("digits", "staging")
        assert current is not None
        assert current.digest in (old.digest, new.digest)
        assert open_artifact(current.path).digest == current.digest
        assert registry.verify() == ()
        seen.add(current.digest)

        move(registry, new, evidence=b"new")
        assert current_digest(registry) == new.digest
        assert [promotion.to_digest for promotion in registry.history()] == [old.digest, new.digest]
        assert registry.verify() == ()
        assert {path.name for path in registry.files.artifacts.iterdir()} == {
            artifact.digest.removeprefix("sha256:") for artifact in (old, new)
        }
        assert len(list(registry.files.evidence.iterdir())) == 2
        assert not registry.files.partial.exists()
    assert len(seen) == 2


def test_a_first_promotion_killed_anywhere_is_done_whole_or_not_at_all(tmp_path: Path) -> None:
    seen = set()
    for folder in kill_everywhere(first_promotion_until_killed, tmp_path):
        registry, new = reopened(folder, "new")
        seen.add(current_digest(registry))
        assert registry.verify() == ()
        assert move(registry, new) == current_digest(registry) == new.digest
        assert len(registry.history()) == 1
        assert registry.verify() == ()
    assert seen == {None, new.digest}


def test_a_roll_back_killed_anywhere_is_done_whole_or_not_at_all(tmp_path: Path) -> None:
    lengths = set()
    for folder in kill_everywhere(roll_back_until_killed, tmp_path):
        registry, old = reopened(folder, "old")
        history = registry.history()
        lengths.add(len(history))
        assert (current_digest(registry) == old.digest) == (len(history) == 3)
        assert registry.verify() == ()
    assert lengths == {2, 3}


# Several processes


def test_of_four_processes_that_promote_at_once_one_wins(registry: SqliteRegistry, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, said = context.Barrier(4), context.Queue()
    for number in range(4):
        made(tmp_path, f"model{number}")
    processes = [
        context.Process(target=promote_together, args=(tmp_path, number, barrier, said)) for number in range(4)
    ]
    for process in processes:
        process.start()
    heard = [said.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert heard.count("stale") == 3
    (promotion,) = registry.history()
    assert promotion.to_digest == current_digest(registry)
    assert promotion.to_digest in heard
    assert registry.verify() == ()
    assert len(list(registry.files.artifacts.iterdir())) == 4


# The place


@pytest.mark.parametrize("location", ["../registry.db", "/etc/registry.db", "a/../../registry.db", ".."])
def test_a_location_outside_of_the_project_is_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises(RegistryError, match="is outside of") as caught:
        open_sqlite(location, tmp_path / "project")
    assert caught.value.where == "promote.registry"


@pytest.mark.parametrize("location", ["", ".", "/", "a\0b", "a\nb"])
def test_a_location_that_is_no_path_is_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises(RegistryError, match="is not the path of a file"):
        open_sqlite(location, tmp_path)


@pytest.mark.parametrize("name", ["registry.db", "registry.artifacts", "registry.evidence", "in"])
def test_a_link_that_leads_out_of_the_project_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / name).symlink_to(tmp_path / "outside")
    location = "in/registry.db" if name == "in" else "registry.db"
    with pytest.raises(RegistryError, match="is outside of"):
        open_sqlite(location, tmp_path / "project")


def test_a_folder_below_the_project_is_made(tmp_path: Path) -> None:
    registry = open_sqlite("a/b/registry.db", tmp_path)
    digest = move(registry, made(tmp_path, "a"))
    assert current_digest(open_sqlite("a/b/registry.db", tmp_path)) == digest


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("../x.db", "is outside of"),
        ("/x.db", "is outside of"),
        ("notes.txt", "exists, and is not an SQLite database"),
        ("folder", "is a folder, expected a file"),
        ("pipe", "is not a file"),
        ("notes.txt/registry.db", "is a file, expected a folder"),
        ("", "is not the path of a file"),
    ],
)
def test_a_location_where_no_registry_can_be_is_refused_before_it_is_opened(
    location: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RegistryError, match=says):
        check_sqlite(location, tmp_path)


def test_a_location_of_a_registry_or_of_nothing_is_accepted(registry: SqliteRegistry, tmp_path: Path) -> None:
    check_sqlite("a/b/registry.db", tmp_path)
    (tmp_path / "empty.db").touch()
    check_sqlite("empty.db", tmp_path)
    registry.propose("digits", made(tmp_path, "a"), b"{}", NOW)
    check_sqlite("registry.db", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"registry.db", "empty.db"}
    assert not (tmp_path / "a" / "b").exists()
