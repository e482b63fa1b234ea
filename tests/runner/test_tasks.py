"""What a worker is given, and what becomes of it for other processes of the run."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploycheck.runner.tasks import RENEW_BEFORE, AlreadyFailed, Task, addresses, lasts
from deploycheck.store import Artifact


def task(folder: Path) -> Task:
    return Task(
        kind="model",
        key="ab" * 32,
        settings={"model": "digits", "uses": [["models", "net:build"]], "share": 0.1, "none": None},
        inputs={"weights": folder / "weights"},
        digests={"weights": "sha256:" + "cd" * 32},
        extensions=(folder / "conftest.py",),
        store=folder / "store",
        failed=folder / "run" / "failed" / ("ab" * 32),
        name="model[int8]",
    )


def made(meta: Mapping[str, str]) -> Artifact:
    return Artifact(path=Path(), kind="model", key="0" * 64, digest="sha256:", files={}, meta=meta)


def test_a_task_is_one_line_that_says_all_of_it(tmp_path: Path) -> None:
    line = task(tmp_path).to_json()
    assert "\n" not in line
    assert Task.from_json(line) == task(tmp_path)


def test_a_failure_is_known_by_its_name_to_every_process_of_the_run(tmp_path: Path) -> None:
    task(tmp_path).check_not_failed()
    task(tmp_path).mark_failed()
    with pytest.raises(AlreadyFailed, match=r"^model\[int8\]$"):
        task(tmp_path).check_not_failed()


@pytest.mark.parametrize(("days", "enough"), [(1, True), (-1, False)])
def test_an_export_is_renewed_before_it_can_no_longer_be_loaded(days: int, enough: bool) -> None:
    until = datetime.now(UTC).date() + RENEW_BEFORE + timedelta(days=days)
    exported = made({"loadable_until": until.isoformat()})
    assert lasts(exported) is enough


def test_the_addresses_of_a_key_are_its_own_and_the_first_is_the_key() -> None:
    ours = list(itertools.islice(addresses("ab" * 32), 3))
    theirs = list(itertools.islice(addresses("cd" * 32), 3))
    assert ours[0] == "ab" * 32
    assert len({*ours, *theirs}) == 6
    assert ours == list(itertools.islice(addresses("ab" * 32), 3))
    assert {len(address) for address in ours} == {64}


def test_what_says_no_day_lasts_for_ever() -> None:
    assert lasts(made({}))
