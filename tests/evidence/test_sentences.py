from __future__ import annotations

import pytest

from deploycheck.evidence import TargetRecord
from deploycheck.evidence.sentences import MOST_REASONS, Missing, conclusion, done_again, error_rates, status
from deploycheck.promotion import Decision
from deploycheck.verdict import Outcome
from tests.evidence.records import CHOSEN, MOVED, check, spec, step


def test_what_was_promoted_is_named_with_its_alias_and_its_path() -> None:
    record = spec(check(), decision=Decision.PROMOTED, chosen=CHOSEN, promotion=MOVED)
    assert list(conclusion(record)) == [
        "promoted: int8 is now digits@staging (sha256:abababababab) in sqlite:registry.db",
        "stored in /registry.artifacts/ab",
    ]


def test_what_would_be_promoted_is_named_with_how() -> None:
    target = TargetRecord(registry=None, model="digits", alias="staging")
    assert list(conclusion(spec(check(), target=target, chosen=CHOSEN))) == [
        "promotable: int8 (sha256:abababababab), with --deploycheck-promote",
        "stored in /cache/model/ab",
    ]


def test_what_was_withheld_counts_its_checks_and_says_why() -> None:
    verdicts = ("pass", "undecided", "pass", "fail")
    checks = [check(id=verdict, verdict=verdict, shown="1 %", threshold=">= 2 %") for verdict in verdicts]
    broken = check(id="broken", metric="completes", verdict="error", reason="no such file", shown="", threshold=None)
    hanging = check(id="hanging", verdict="error", reached=False, reason="not reached: train failed", shown="")
    record = spec(
        *checks,
        broken,
        hanging,
        decision=Decision.WITHHELD,
        reasons=("fail: fail", "undecided: undecided", "broken: error", "hanging: error", "late: did not run", "more"),
        other_reasons=("more",),
        not_run=("late",),
    )
    assert list(conclusion(record)) == [
        "withheld: 2 pass, 1 fail, 1 undecided, 1 error, 1 not reached, 1 did not run",
        "  train::accuracy: undecided: 1 %, the standard is >= 2 %",
        "  train::accuracy: fail: 1 %, the standard is >= 2 %",
        "  train::completes: error: no such file",
        "  more",
    ]


def test_a_spec_of_which_nothing_ran_says_so() -> None:
    assert next(conclusion(spec(decision=Decision.WITHHELD))) == "withheld: no check ran"


@pytest.mark.parametrize("number", [MOST_REASONS, MOST_REASONS + 1])
def test_of_many_reasons_the_first_are_shown_and_the_rest_counted(number: int) -> None:
    reasons = tuple(f"reason {i}" for i in range(number))
    lines = list(conclusion(spec(decision=Decision.WITHHELD, other_reasons=reasons)))
    assert lines[1 : 1 + MOST_REASONS] == [f"  {reason}" for reason in reasons[:MOST_REASONS]]
    assert lines[1 + MOST_REASONS :] == (["  and 1 more, in the evidence"] if number > MOST_REASONS else [])


def test_what_a_stage_remarks_is_shown() -> None:
    stage = check(stage="data", metric="completes", threshold=None, shown="done", reason="x[2] is constant")
    assert "note: data::completes: x[2] is constant" in list(conclusion(spec(stage, check(reason="a remark"))))
    assert not [line for line in conclusion(spec(check(reason="class 2 is worst"))) if line.startswith("note")]


@pytest.mark.parametrize("decision", Decision)
def test_a_waiver_is_shown_whatever_was_decided(decision: Decision) -> None:
    waived = check(verdict="waived", waiver="the tablet has room (until 2999-01-31, by mara)")
    record = spec(waived, check(), decision=decision, promotion=MOVED if decision is Decision.PROMOTED else None)
    waivers = [line for line in conclusion(record) if line.startswith("waived: ")]
    assert waivers == ["waived: train::accuracy, the tablet has room (until 2999-01-31, by mara)"]


def test_a_reason_that_reads_like_that_of_a_check_is_shown_if_it_is_not_about_one() -> None:
    looks_alike = "fail: fail"
    record = spec(check(id="fail"), decision=Decision.WITHHELD, reasons=(looks_alike,), other_reasons=(looks_alike,))
    assert f"  {looks_alike}" in conclusion(record)


def test_a_spec_withheld_after_an_earlier_promotion_is_not_called_promoted() -> None:
    record = spec(check(), decision=Decision.WITHHELD, promotion=MOVED, other_reasons=("unknown registry",))
    assert list(conclusion(record)) == ["withheld: 1 pass", "  unknown registry"]


@pytest.mark.parametrize("verdict", [Outcome.ERROR, Outcome.UNDECIDED])
def test_a_check_that_was_not_reached_has_no_verdict(verdict: Outcome) -> None:
    assert status(check(verdict=verdict)) is verdict
    assert status(check(verdict=verdict, reached=False)) is Missing.NOT_REACHED


def test_errors_against_a_good_model_add_up_and_those_against_a_bad_one_do_not() -> None:
    compared = check(interval=None, confidence=None)
    assert list(error_rates(spec(check(), check(), check(confidence=0.99), compared))) == [
        "3 verdicts from samples: a model that misses a standard passes at most 5 times in 100, "
        "and one that just meets them all fails at most 11 times in 100"
    ]
    assert list(error_rates(spec(compared))) == []


def test_only_steps_done_again_are_named_each_with_its_reason() -> None:
    steps = (
        step(step="data", reused=True),
        step(step="training", because="source net.py changed"),
        step(step="model[int8]", because="training changed"),
    )
    assert list(done_again(spec(steps=steps))) == [
        "done again: training (source net.py changed)",
        "done again: model[int8] (training changed)",
    ]


def test_a_check_that_was_tried_more_than_once_is_named_with_how_often() -> None:
    record = spec(check(attempts=3, verdict="fail"), check(), decision=Decision.WITHHELD)
    assert [line for line in conclusion(record) if line.startswith("retried: ")] == [
        "retried: train::accuracy: tried 3 times; the worst counts: fail"
    ]
