from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploycheck.plugin.attempts import CRASHED, Attempts
from deploycheck.runner.judge import unjudged
from deploycheck.verdict import Outcome
from tests.planning import HEAD, plan


@pytest.fixture
def sent(tmp_path: Path) -> Any:
    made = plan(HEAD, tmp_path)
    check = made.checks[-1]

    def payload(process: str, *outcomes: Outcome) -> dict[str, Any]:
        attempts = [unjudged(made, check, outcome, "").model_dump(mode="json") for outcome in outcomes]
        return {
            "process": process,
            "spec": made.id,
            "check": check.id,
            "attempts": attempts,
            "steps": [],
            "alias": None,
        }

    payload.plan, payload.check = made, check  # type: ignore[attr-defined]
    return payload


def outcomes(attempts: Attempts, sent: Any) -> list[Outcome]:
    return [record.verdict for record in attempts.results([sent.plan]).checks.get(sent.check.id, [])]


def test_what_a_process_sends_again_is_counted_once(sent: Any) -> None:
    attempts = Attempts()
    for outcomes_so_far in ([Outcome.FAIL], [Outcome.FAIL, Outcome.PASS], [Outcome.FAIL]):
        attempts.take(sent("gw0", *outcomes_so_far))
    assert outcomes(attempts, sent) == [Outcome.FAIL, Outcome.PASS]


def test_attempts_of_several_processes_add_up(sent: Any) -> None:
    attempts = Attempts()
    attempts.take(sent("gw0", Outcome.FAIL))
    attempts.take(sent("gw1", Outcome.PASS))
    assert outcomes(attempts, sent) == [Outcome.FAIL, Outcome.PASS]


@pytest.mark.parametrize("outcome", ["failed", "rerun"])
def test_a_crash_of_a_worker_is_an_attempt_whatever_its_report_is_turned_into(sent: Any, outcome: str) -> None:
    attempts = Attempts()
    attempts.take(sent("gw1", Outcome.PASS))
    crash: Any = pytest.TestReport(sent.check.id, ("spec.yaml", None, ""), {}, "failed", None, CRASHED)  # type: ignore[arg-type]
    crash.outcome = outcome
    attempts.take_crash(crash)
    assert outcomes(attempts, sent) == [Outcome.PASS, Outcome.ERROR]
