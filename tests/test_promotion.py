from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploycheck.promotion import Candidate, Decision, Reason, Result, rule
from deploycheck.verdict import Outcome

SMALL = Candidate("int8", "sha256:b", size=30, accuracy=0.97, latency=0.003)
LARGE = Candidate("trained", "sha256:a", size=90, accuracy=0.99, latency=0.002)


def results(**outcomes: Outcome) -> dict[str, list[Result]]:
    return {check: [Result(check, outcome)] for check, outcome in outcomes.items()}


def test_every_check_passed_is_promotable() -> None:
    ruling = rule(["a", "b"], results(a=Outcome.PASS, b=Outcome.WARN), [LARGE, SMALL], "smallest")
    assert ruling.decision is Decision.PROMOTABLE
    assert ruling.chosen == SMALL


def test_a_check_that_did_not_run_withholds_by_name() -> None:
    ruling = rule(["a", "b"], results(a=Outcome.PASS), [LARGE], "smallest")
    assert ruling.decision is Decision.WITHHELD
    assert ruling.reasons == (Reason("did not run", "b"),)
    assert str(ruling.reasons[0]) == "b: did not run"


def test_a_check_that_blocks_withholds_by_name_and_outcome() -> None:
    ruling = rule(["a", "b"], results(a=Outcome.FAIL, b=Outcome.UNDECIDED), [LARGE], "smallest")
    assert list(map(str, ruling.reasons)) == ["a: fail", "b: undecided"]


@given(st.dictionaries(st.sampled_from("abcd"), st.sampled_from(list(Outcome))))
def test_promotable_means_that_every_expected_check_ran_and_none_blocks(outcomes: dict[str, Outcome]) -> None:
    ruling = rule(list("abcd"), results(**outcomes), [LARGE], "smallest")
    clean = set(outcomes) == set("abcd") and not any(outcome.blocks for outcome in outcomes.values())
    assert (ruling.decision is Decision.PROMOTABLE) is clean


def test_a_retry_that_turned_green_does_not_promote() -> None:
    attempts = {"a": [Result("a", Outcome.FAIL), Result("a", Outcome.PASS)]}
    assert rule(["a"], attempts, [LARGE], "smallest").decision is Decision.WITHHELD


def test_a_spec_without_checks_does_not_pass() -> None:
    assert rule([], {}, [LARGE], "smallest").decision is Decision.WITHHELD


def test_checks_on_different_bytes_of_one_variant_withhold() -> None:
    attempts = {
        "a": [Result("a", Outcome.PASS, "int8", "sha256:b")],
        "b": [Result("b", Outcome.PASS, "int8", "sha256:c")],
    }
    ruling = rule(["a", "b"], attempts, [SMALL], "smallest")
    assert ruling.decision is Decision.WITHHELD
    assert ruling.reasons == (Reason("int8: its checks were run on 2 different artifacts"),)


@pytest.mark.parametrize(
    ("policy", "variant"),
    [("smallest", "int8"), ("fastest", "trained"), ("most_accurate", "trained"), ("int8", "int8")],
)
def test_the_policy_chooses(policy: str, variant: str) -> None:
    ruling = rule(["a"], results(a=Outcome.PASS), [LARGE, SMALL], policy)
    assert ruling.chosen is not None
    assert ruling.chosen.variant == variant


def test_a_policy_that_cannot_compare_withholds() -> None:
    unmeasured = Candidate("int8", "sha256:b", size=30)
    ruling = rule(["a"], results(a=Outcome.PASS), [LARGE, unmeasured], "fastest")
    assert ruling.decision is Decision.WITHHELD
    assert ruling.reasons == (Reason("`choose: fastest` can't compare: nothing measured for int8"),)


def test_a_variant_without_an_artifact_can_not_be_chosen() -> None:
    ruling = rule(["a"], results(a=Outcome.PASS), [LARGE], "int8")
    assert ruling.decision is Decision.WITHHELD
    assert ruling.reasons == (Reason("no artifact of the variant 'int8', which `choose` names"),)


def test_of_equal_candidates_the_one_that_the_spec_names_first_is_chosen() -> None:
    same = Candidate("again", "sha256:c", size=SMALL.size)
    assert rule(["a"], results(a=Outcome.PASS), [LARGE, SMALL, same], "smallest").chosen == SMALL
    assert rule(["a"], results(a=Outcome.PASS), [LARGE, same, SMALL], "smallest").chosen == same
