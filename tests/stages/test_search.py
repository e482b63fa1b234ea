"""A search over a function of the settings, without any training."""

from __future__ import annotations

import math
import os
import signal
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.language.optimize import Optimize
from deploycheck.stages.samplers import Sampler
from deploycheck.stages.samplers.cmaes import CMAES
from deploycheck.stages.samplers.gp import GP
from deploycheck.stages.samplers.grid import GRID
from deploycheck.stages.samplers.nsga2 import NSGA2
from deploycheck.stages.samplers.random import RANDOM
from deploycheck.stages.samplers.tpe import TPE
from deploycheck.stages.search import FEWEST_BEFORE, Hopeless, Report, Result, run
from deploycheck.stages.trials import COMPLETE, STOPPED, Settings, best_of, front_of
from tests.stages.killing import run_until_killed

SAMPLERS = (TPE, GP, NSGA2, CMAES, RANDOM)
SPACE = {"rate": {"log": [1e-4, 1.0]}, "width": {"integers": [1, 64]}, "shift": {"uniform": [-1, 1]}}
LOSS = {"trials": 24, "minimize": "validation.loss"}


def section(space: Any = SPACE, **changed: Any) -> Optimize:
    return Optimize.model_validate({"search": {**LOSS, **changed}, "space": space})


def bowl(settings: Settings) -> float:
    """Return a loss that is 0 at one point."""
    distances = (math.log10(settings["rate"]) + 2, settings["width"] / 32 - 1, settings["shift"])
    return sum(distance**2 for distance in distances)


def evaluate(number: int, settings: Settings, report: Report) -> Result:
    return Result(COMPLETE, (bowl(settings),))


def unexpected(number: int, settings: Settings, report: Report) -> Result:
    raise AssertionError(f"trial {number} is done again")


def quiet(line: str) -> None:
    """Show no progress."""


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
def test_the_same_seed_gives_the_same_trials_and_another_seed_others(sampler: Sampler, tmp_path: Path) -> None:
    found = [
        run(section(seed=seed), sampler, evaluate, tmp_path / str(place), quiet) for place, seed in enumerate((3, 3, 4))
    ]
    assert found[0] == found[1]
    assert found[0] != found[2]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
def test_every_value_is_one_of_those_that_are_listed(sampler: Sampler, tmp_path: Path) -> None:
    choices = [[16], {"a": None}, None, "text"]
    for trial in run(section({**SPACE, "kind": {"choice": choices}}), sampler, evaluate, tmp_path, quiet):
        assert 1e-4 <= trial.settings["rate"] <= 1
        assert type(trial.settings["width"]) is int
        assert 1 <= trial.settings["width"] <= 64
        assert -1 <= trial.settings["shift"] <= 1
        assert trial.settings["kind"] in choices


def die_at_seven(number: int, settings: Settings, report: Report) -> Result:
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return evaluate(number, settings, report)


def search_until_seven(name: str, folder: Path) -> None:
    sampler = next(sampler for sampler in SAMPLERS if sampler.name == name)
    run(section(), sampler, die_at_seven, folder, quiet)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
def test_a_killed_search_goes_on_and_ends_as_if_it_had_not_been(sampler: Sampler, tmp_path: Path) -> None:
    run_until_killed(search_until_seven, sampler.name, tmp_path / "killed")
    numbers: list[int] = []

    def counted(number: int, settings: Settings, report: Report) -> Result:
        numbers.append(number)
        return evaluate(number, settings, report)

    resumed = run(section(), sampler, counted, tmp_path / "killed", quiet)
    assert numbers[0] == 7
    assert resumed == run(section(), sampler, evaluate, tmp_path / "whole", quiet)


def test_a_result_that_was_cut_off_by_a_power_cut_is_measured_again(tmp_path: Path) -> None:
    before = run(section(trials=3), TPE, evaluate, tmp_path, quiet)
    (tmp_path / "trial-2.json").write_text("")
    assert run(section(trials=3), TPE, evaluate, tmp_path, quiet) == before
    assert run(section(trials=3), TPE, unexpected, tmp_path, quiet) == before


def test_a_trial_is_done_again_where_the_sampler_draws_other_settings(tmp_path: Path) -> None:
    run(section(trials=3, seed=1), RANDOM, evaluate, tmp_path, quiet)
    found = run(section(trials=3, seed=2), RANDOM, evaluate, tmp_path, quiet)
    assert [trial.values for trial in found] == [(bowl(trial.settings),) for trial in found]
    assert found == run(section(trials=3, seed=2), RANDOM, evaluate, tmp_path / "fresh", quiet)


def test_the_same_settings_are_not_trained_twice(tmp_path: Path) -> None:
    tried: list[Settings] = []

    def counted(number: int, settings: Settings, report: Report) -> Result:
        tried.append(settings)
        return Result(COMPLETE, (float(settings["width"]),))

    found = run(section({"width": {"integers": [1, 3]}}, trials=20), TPE, counted, tmp_path, quiet)
    assert len(found) == 20
    assert sorted(settings["width"] for settings in tried) == [1, 2, 3]
    assert all(trial.values == (trial.settings["width"],) for trial in found)


def test_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(DeploycheckError, match=r"pip install 'deploycheck\[optimize\]'"):
        run(section(), TPE, evaluate, tmp_path, quiet)


def test_a_grid_is_every_combination_once(tmp_path: Path) -> None:
    space = {"width": {"integers": [1, 3]}, "kind": {"choice": ["a", [1]]}}
    found = run(section(space, trials=6), GRID, lambda *_: Result(COMPLETE, (0.0,)), tmp_path, quiet)
    tried = [(trial.settings["width"], trial.settings["kind"]) for trial in found]
    assert tried == [(width, kind) for width in (1, 2, 3) for kind in ("a", [1])]


@pytest.mark.parametrize("sampler", [TPE, GP, CMAES, NSGA2], ids=lambda sampler: sampler.name)
def test_a_sampler_that_learns_beats_one_that_does_not(sampler: Sampler, tmp_path: Path) -> None:
    lowest: dict[str, list[float]] = {}
    for seed in range(5):
        for each in (sampler, RANDOM):
            found = run(section(trials=40, seed=seed), each, evaluate, tmp_path / each.name / str(seed), quiet)
            lowest.setdefault(each.name, []).append(min(trial.values[0] for trial in found))
    assert statistics.median(lowest[sampler.name]) < statistics.median(lowest["random"])


@pytest.mark.parametrize("sampler", [TPE, NSGA2, RANDOM], ids=lambda sampler: sampler.name)
def test_several_objectives_are_searched_together(sampler: Sampler, tmp_path: Path) -> None:
    asked = section(trials=40, minimize=["validation.loss", "parameters"])

    def two(number: int, settings: Settings, report: Report) -> Result:
        return Result(COMPLETE, (bowl(settings), float(settings["width"])))

    found = run(asked, sampler, two, tmp_path, quiet)
    assert len(front_of(found, asked.search)) > 1
    assert best_of(found, asked.search) in front_of(found, asked.search)


def test_diverged_trials_keep_the_sampler_away(tmp_path: Path) -> None:
    def half(number: int, settings: Settings, report: Report) -> Result:
        return Result("diverged") if settings["rate"] > 1e-2 else evaluate(number, settings, report)

    for sampler in (TPE, GP):
        found = run(section(trials=40), sampler, half, tmp_path / sampler.name, quiet)
        late = [trial.ended for trial in found[20:]]
        assert late.count("diverged") < 8, sampler.name


def test_the_lines_of_progress_say_what_was_reached(tmp_path: Path) -> None:
    lines: list[str] = []
    accuracies = {"maximize": "validation.accuracy", "minimize": (), "trials": 3}
    values = iter([0.5, 0.972, 0.969])

    def accuracy(number: int, settings: Settings, report: Report) -> Result:
        return Result(COMPLETE, (next(values),))

    run(section(**accuracies), RANDOM, accuracy, tmp_path, lines.append)
    assert lines[1:] == [
        "optimize: trial 2/3: accuracy 97.2 % (best 97.2 %), 0 s left",
        "optimize: trial 3/3: accuracy 96.9 % (best 97.2 %), 0 s left",
    ]
    run(section(**accuracies), RANDOM, unexpected, tmp_path, lines.append)
    assert lines[3] == "optimize: trial 1/3: was done before"


def hopeless_after_one_epoch(number: int, settings: Settings, report: Report) -> Result:
    loss = bowl(settings)
    try:
        for epoch in range(4):
            report(loss + 1 / (1 + epoch))
    except Hopeless:
        return Result(STOPPED)
    return Result(COMPLETE, (loss,))


def test_a_trial_that_half_of_the_complete_ones_beat_is_stopped(tmp_path: Path) -> None:
    trials = run(section(stop_hopeless=True), RANDOM, hopeless_after_one_epoch, tmp_path, quiet)
    assert not [trial for trial in trials[:FEWEST_BEFORE] if trial.ended == STOPPED]
    stopped = [trial for trial in trials if trial.ended == STOPPED]
    assert len(stopped) >= 5
    assert all(len(trial.reports) < 4 and not trial.values for trial in stopped)
    for number, trial in enumerate(trials[FEWEST_BEFORE:], FEWEST_BEFORE):
        first = (before.reports[0] for before in trials[:number] if before.ended == COMPLETE)
        median = statistics.median(first)
        assert (len(trial.reports) == 1) == (trial.reports[0] > median)
    best = best_of(trials, section().search)
    assert best.values == (min(bowl(trial.settings) for trial in trials),)


def test_what_was_stopped_is_stopped_when_a_killed_search_goes_on(tmp_path: Path) -> None:
    asked = section(stop_hopeless=True)
    before = run(asked, TPE, hopeless_after_one_epoch, tmp_path, quiet)
    for number in range(12, 24):
        (tmp_path / f"trial-{number}.json").unlink()
    assert run(asked, TPE, hopeless_after_one_epoch, tmp_path, quiet) == before
