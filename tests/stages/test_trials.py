"""Which trial of a search is taken, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploycheck.errors import DeploycheckError
from deploycheck.language.optimize import Search
from deploycheck.stages.trials import (
    COMPLETE,
    DIVERGED,
    STOPPED,
    TRIALS,
    Trial,
    best_of,
    describe,
    front_of,
    read_best,
    write,
)


def test_no_trial_is_taken_where_none_was_trained() -> None:
    with pytest.raises(DeploycheckError, match="the loss of 3 of 4 was not finite"):
        best_of([trial_of(ended=DIVERGED)] * 3 + [trial_of(ended=STOPPED)], SEVERAL)


def trial_of(*values: float, ended: str = COMPLETE) -> Trial:
    return Trial(settings={"values": values}, ended=ended, values=values)


SEVERAL = Search.model_validate(
    {"trials": 5, "maximize": "validation.accuracy", "minimize": ["parameters"], "tolerance": "2 %"}
)


def test_of_several_objectives_the_first_is_given_up_as_far_as_the_spec_says() -> None:
    trials = [trial_of(0.97, 900), trial_of(0.96, 400), trial_of(0.955, 300), trial_of(0.94, 100)]
    assert best_of(trials, SEVERAL) == trials[2]
    exact = SEVERAL.model_copy(update={"tolerance": 0.0})
    assert best_of(trials, exact) == trials[0]


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=12), st.floats(0, 1))
def test_no_trial_is_better_in_everything_than_the_one_that_is_taken(
    values: list[tuple[int, int]], tolerance: float
) -> None:
    trials = [trial_of(*pair) for pair in values]
    asked = SEVERAL.model_copy(update={"tolerance": tolerance})
    best = best_of(trials, asked)
    assert best in front_of(trials, asked)
    highest = max(pair[0] for pair in values)
    assert best.values[0] >= highest - tolerance * abs(highest)


def test_what_was_found_is_written_and_said(tmp_path: Path) -> None:
    trials = [
        Trial(settings={"rate": 0.0123456, "widths": [16, 32]}, ended=COMPLETE, values=(0.972,)),
        trial_of(0.9),
        trial_of(ended=STOPPED),
        trial_of(ended=DIVERGED),
    ]
    asked = Search.model_validate({"trials": 4, "maximize": "validation.accuracy"})
    write(trials, asked, tmp_path)
    assert read_best(tmp_path) == {"rate": 0.0123456, "widths": [16, 32]}
    assert len(json.loads((tmp_path / TRIALS).read_text())) == 4
    assert describe(trials, asked, {"rate": 0.003, "widths": None}) == [
        "rate = 0.01235, was 0.003",
        "widths = [16, 32] (validation.accuracy 97.2 %; best of 4 trials, 1 stopped early, 1 diverged)",
    ]


def test_the_front_is_said_where_there_are_several_objectives() -> None:
    trials = [trial_of(0.97, 1200), trial_of(0.96, 1400), trial_of(0.5, 100)]
    (line,) = describe(trials, SEVERAL, {})
    assert line.endswith("(validation.accuracy 97.0 %, parameters 1,200; one of 2 on the Pareto front of 3 trials)")
