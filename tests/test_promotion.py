from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploycheck.promotion import MAX_AGE, Candidate, Decision, Result, find_staleness, rule
from deploycheck.registry.ledger import CLOCK_TOLERANCE
from deploycheck.verdict import Outcome

SMALL = Candidate(variant="int8", artifact="sha256:b", size=30, accuracy=0.97, latency=0.003)
LARGE = Candidate(variant="trained", artifact="sha256:a", size=90, accuracy=0.99, latency=0.002)


def results(**outcomes: Outcome) -> dict[str, list[Result]]:
    return {check: [Result(check, outcome)] for check, outcome in outcomes.items()}


def test_every_check_passed_is_promotable() -> None:
    ruling = rule(["a", "b"], results(a=Outcome.PASS, b=Outcome.WARN), [LARGE, SMALL], "smallest")
    assert ruling.decision is Decision.PROMOTABLE
    assert ruling.chosen == SMALL


def test_a_check_that_did_not_run_withholds_by_name() -> None:
    ruling = rule(["a", "b"], results(a=Outcome.PASS), [LARGE], "smallest")
    assert ruling.decision is Decision.WITHHELD
    assert [str(reason) for reason in ruling.reasons] == ["b: did not run"]


@given(st.dictionaries(st.sampled_from("abcd"), st.sampled_from(list(Outcome))))
def test_promotable_means_that_every_expected_check_ran_and_none_blocks(outcomes: dict[str, Outcome]) -> None:
    ruling = rule(list("abcd"), results(**outcomes), [LARGE], "smallest")
    clean = set(outcomes) == set("abcd") and not any(outcome.blocks for outcome in outcomes.values())
    assert (ruling.decision is Decision.PROMOTABLE) is clean


def test_a_retry_that_turned_green_does_not_promote() -> None:
    attempts = {"a": [Result("a", Outcome.FAIL), Result("a", Outcome.PASS)]}
    assert rule(["a"], attempts, [LARGE], "smallest").decision is Decision.WITHHELD


def test_a_spec_without_checks_is_withheld() -> None:
    assert rule([], {}, [LARGE], "smallest").decision is Decision.WITHHELD


def test_checks_of_one_variant_on_different_bytes_withhold() -> None:
    attempts = {
        "a": [Result("a", Outcome.PASS, "int8", "sha256:b")],
        "b": [Result("b", Outcome.PASS, "int8", "sha256:c")],
    }
    ruling = rule(["a", "b"], attempts, [SMALL], "smallest")
    assert ruling.decision is Decision.WITHHELD
    assert "2 different artifacts" in str(ruling.reasons[0])


def test_an_artifact_that_is_not_the_one_checked_is_withheld() -> None:
    ruling = rule(["a"], {"a": [Result("a", Outcome.PASS, "int8", "sha256:c")]}, [SMALL], "smallest")
    assert ruling.decision is Decision.WITHHELD
    assert str(ruling.reasons[0]) == "int8: the artifact is sha256:b, its checks were run on sha256:c"


@given(st.timedeltas(-MAX_AGE, MAX_AGE * 2))
def test_evidence_is_stale_when_it_is_old_or_of_the_future(age: timedelta) -> None:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    assert bool(find_staleness(now - age, now)) is not (-CLOCK_TOLERANCE <= age <= MAX_AGE)


@pytest.mark.parametrize(
    ("policy", "variant"),
    [("smallest", "int8"), ("fastest", "trained"), ("most_accurate", "trained"), ("int8", "int8")],
)
def test_the_policy_chooses(policy: str, variant: str) -> None:
    ruling = rule(["a"], results(a=Outcome.PASS), [LARGE, SMALL], policy)
    assert ruling.chosen is not None
    assert ruling.chosen.variant == variant


def test_a_policy_that_cannot_compare_withholds() -> None:
    unmeasured = Candidate(variant="int8", artifact="sha256:b", size=30)
    ruling = rule(["a"], results(a=Outcome.PASS), [LARGE, unmeasured], "fastest")
    assert ruling.decision is Decision.WITHHELD
    assert "int8" in str(ruling.reasons[0])
