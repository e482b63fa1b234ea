"""The search: the smallest input is found, saved, and tried first by the next search."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import strategies as st

from deploycheck.errors import DeploycheckError
from deploycheck.properties import NoAnswer, Property
from deploycheck.properties.deterministic import DETERMINISTIC
from deploycheck.properties.finite import FINITE
from deploycheck.properties.search import KeyedDatabase, search
from tests.properties.planted import GOOD, WEIGHTS, Planted, domain, tried

NAN_REGION = Planted(lambda x: np.where(x[:, 2:3] > 0.9, np.nan, x @ WEIGHTS))


def test_a_property_that_holds_has_no_counterexample_in_all_examples(tmp_path: Path) -> None:
    found = tried(FINITE, GOOD, tmp_path, examples=30)
    assert (found.violation, found.counterexample) == ("", "")
    assert found.examples >= 25


def test_the_counterexample_is_one_row_with_the_one_feature_that_matters(tmp_path: Path) -> None:
    found = tried(FINITE, NAN_REGION, tmp_path)
    assert found.violation == "y[0, 0] is nan"
    assert not found.counterexample.startswith("a batch")
    assert found.counterexample.count("x[") <= 1, found.counterexample


def test_the_next_search_tries_the_saved_input_first(tmp_path: Path) -> None:
    first = tried(FINITE, NAN_REGION, tmp_path)
    second = tried(FINITE, NAN_REGION, tmp_path, seed=5)
    assert (first.replayed, first.saved) == (False, 0)
    assert (second.replayed, second.examples) == (True, 1)
    assert second.counterexample == first.counterexample


def test_an_input_is_replayed_only_if_an_earlier_run_found_it(tmp_path: Path) -> None:
    KeyedDatabase(tmp_path, "key").save(b"", b"of cases that are not drawn any more")
    found = tried(FINITE, Planted(lambda x: np.full((len(x), 1), np.nan)), tmp_path)
    assert (found.saved, found.examples, found.replayed) == (1, 1, False)


def test_a_saved_input_of_another_key_is_not_tried(tmp_path: Path) -> None:
    tried(FINITE, NAN_REGION, tmp_path)
    assert tried(FINITE, NAN_REGION, tmp_path, key="another").saved == 0


def test_a_saved_input_that_violates_nothing_any_more_is_forgotten(tmp_path: Path) -> None:
    tried(FINITE, NAN_REGION, tmp_path)
    assert tried(FINITE, GOOD, tmp_path).saved == 1
    assert tried(FINITE, GOOD, tmp_path).saved == 0


def test_the_same_seed_asks_the_same(tmp_path: Path) -> None:
    asked: list[list[bytes]] = [[], [], []]

    def recording(index: int) -> Planted:
        return Planted(lambda x: asked[index].append(x.tobytes()) or x @ WEIGHTS)  # type: ignore[func-returns-value]

    for index, seed in enumerate((1, 1, 2)):
        tried(FINITE, recording(index), tmp_path, seed=seed, examples=20)
    assert asked[0] == asked[1] != asked[2]


def test_a_violation_that_is_seen_once_counts(tmp_path: Path) -> None:
    calls = itertools.count()
    rarely = Planted(lambda x: x @ WEIGHTS + (next(calls) == 7))
    found = tried(DETERMINISTIC, rarely, tmp_path)
    assert found.violation.endswith("the first time")


def test_no_answer_is_a_violation(tmp_path: Path) -> None:
    def refuse(x: np.ndarray) -> np.ndarray:
        raise NoAnswer("the server answered 500")

    assert tried(FINITE, Planted(refuse), tmp_path).violation == "the server answered 500"


def test_a_failed_assertion_is_a_violation_and_another_error_is_raised_at_once(tmp_path: Path) -> None:
    def check(predictor: Planted, case: object, settings: object) -> str:
        assert not predictor.predict, "the model can be asked"
        return ""

    calls = itertools.count()

    def broken(predictor: Planted, case: object, settings: object) -> str:
        next(calls)
        raise KeyError("logits")

    assert tried(Property(name="own", check=check), GOOD, tmp_path).violation.startswith("the model can be asked")
    with pytest.raises(KeyError):
        tried(Property(name="own", check=broken), GOOD, tmp_path)
    assert next(calls) == 1


def test_a_check_that_rejects_all_inputs_has_tried_none(tmp_path: Path) -> None:
    def rejecting(predictor: Planted, case: object, settings: object) -> str:
        assume(False)
        return ""

    with pytest.raises(DeploycheckError, match="no input could be tried"):
        tried(Property(name="own", check=rejecting), GOOD, tmp_path)
    nothing = Property(name="own", check=print, cases=lambda domain, settings: st.nothing())
    with pytest.raises(DeploycheckError, match="no input could be tried"):
        tried(nothing, GOOD, tmp_path)


def test_a_model_that_hangs_is_asked_for_a_limited_time_for_a_smaller_input(tmp_path: Path) -> None:
    seconds = itertools.count(step=10)
    bad = Planted(lambda x: np.full((len(x), 1), np.nan if next(seconds) > 20 else 1))
    given = FINITE.settings(examples=1000)
    search(FINITE, bad, domain(), given, saved=tmp_path, key="key", clock=lambda: float(next(seconds)))
    assert next(seconds) < 200


def test_a_slow_model_is_asked_a_limited_number_of_times_for_a_smaller_input(tmp_path: Path) -> None:
    calls = itertools.count()
    bad = Planted(lambda x: np.full((len(x), 1), np.nan + next(calls)))
    found = tried(FINITE, bad, tmp_path, examples=1000)
    assert found.violation
    assert next(calls) <= found.examples + 300
