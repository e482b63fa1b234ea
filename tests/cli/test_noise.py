from __future__ import annotations

import json
import math
import platform
from dataclasses import replace
from pathlib import Path

import pytest

from deploycheck.runner.noise import FILE, Floor, Noise, floors_of, remember
from tests.planning import HEAD, plan

FLOORS = (
    Floor(metric="throughput", ratio=1.0, low=0.98, high=1.02, smallest=0.02),
    Floor(metric="errors", ratio=1.0, low=0.0, high=2.0, smallest=math.inf),
)
SEEN = Noise("int8", "in turn", 0, FLOORS)


def test_what_was_measured_is_remembered_for_this_machine(tmp_path: Path) -> None:
    made = plan(HEAD, tmp_path)
    remember(SEEN, made, tmp_path)
    assert floors_of(made, tmp_path) == {"throughput": 0.02}


def test_what_another_machine_saw_is_kept_and_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(HEAD, tmp_path)
    remember(SEEN, made, tmp_path)
    monkeypatch.setattr(platform, "node", lambda: "quieter")
    assert floors_of(made, tmp_path) == {}
    remember(replace(SEEN, floors=(replace(FLOORS[0], smallest=0.01),)), made, tmp_path)
    assert floors_of(made, tmp_path) == {"throughput": 0.01}
    monkeypatch.undo()
    assert floors_of(made, tmp_path) == {"throughput": 0.02}


def test_what_was_written_when_machines_were_not_told_apart_is_not_used(tmp_path: Path) -> None:
    made = plan(HEAD, tmp_path)
    (tmp_path / FILE).write_text(json.dumps({made.id: {"variant": "int8", "smallest": {"throughput": 0.02}}}))
    assert floors_of(made, tmp_path) == {}
