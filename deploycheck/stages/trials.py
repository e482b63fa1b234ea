"""What a search tried, which of it is taken, and how that is said. Pure, but for two files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploycheck.errors import DeploycheckError
from deploycheck.language.optimize import Search
from deploycheck.language.vocabulary import LOSS, PARAMETERS

BEST, TRIALS = "best.json", "trials.json"
COMPLETE, STOPPED, DIVERGED = "complete", "stopped", "diverged"
"""How a trial ends: with its values; stopped because it was hopeless; with a loss that isn't finite."""
TOLERANCE = 0.01
"""The share of its best value that an objective may be worse, unless the spec says otherwise."""

Settings = Mapping[str, Any]
"""A value for each part of the spec that is varied, by its path."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial: what it tried, what each epoch reported, and how it ended.

    ``values`` are those of the objectives, in the order of ``Search.objectives``; empty unless it is complete.
    """

    settings: Settings
    reports: tuple[float, ...] = ()
    ended: str
    values: tuple[float, ...] = ()

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Trial:
        """Return the trial that ``asdict`` made into plain data."""
        return cls(**{**plain, "reports": tuple(plain["reports"]), "values": tuple(plain["values"])})


def best_of(trials: Sequence[Trial], search: Search) -> Trial:
    """Return the trial whose settings are taken; raise ``DeploycheckError`` where none is complete.

    With one objective it is the best, the first of equals. With several, each objective but the last, in their order,
    leaves those that are at most ``tolerance`` (a share of its best value) worse than the best; of what is left, the
    best in the last objective is taken. No other trial is as good in everything and better in something.
    """
    kept = [trial for trial in trials if trial.ended == COMPLETE]
    if not kept:
        count = sum(trial.ended == DIVERGED for trial in trials)
        what = f"no trial could be trained to its end: the loss of {count} of {len(trials)} was not finite"
        raise DeploycheckError(what, hint="search lower learning rates, or check the data")
    tolerance = TOLERANCE if search.tolerance is None else search.tolerance
    for index in range(len(search.objectives) - 1):
        best = max(_scores(trial, search)[index] for trial in kept)
        least = best - tolerance * abs(best)
        kept = [trial for trial in kept if _scores(trial, search)[index] >= least]
    return max(kept, key=lambda trial: (_scores(trial, search)[-1], *_scores(trial, search)[:-1]))


def front_of(trials: Sequence[Trial], search: Search) -> tuple[Trial, ...]:
    """Return the complete trials than which no other is as good in everything and better in something (Pareto)."""
    scores = [(trial, _scores(trial, search)) for trial in trials if trial.ended == COMPLETE]
    return tuple(
        trial
        for trial, own in scores
        if not any(other != own and all(a >= b for a, b in zip(other, own, strict=True)) for _, other in scores)
    )


def _scores(trial: Trial, search: Search) -> tuple[float, ...]:
    """Return a trial's values, turned so that higher is better."""
    signs = [1.0] * len(search.maximize) + [-1.0] * len(search.minimize)
    return tuple(sign * value for sign, value in zip(signs, trial.values, strict=True))


def write(trials: Sequence[Trial], search: Search, folder: Path) -> None:
    """Write what was found into ``folder``: the best settings with their values, and every trial."""
    best = best_of(trials, search)
    found = {"settings": best.settings, "values": dict(zip(search.objectives, best.values, strict=True))}
    (folder / BEST).write_text(json.dumps(found, indent=1) + "\n")
    (folder / TRIALS).write_text(json.dumps([asdict(trial) for trial in trials], indent=1) + "\n")


def read_best(folder: Path) -> Settings:
    """Return the best settings that ``write`` wrote."""
    settings: Settings = json.loads((folder / BEST).read_text())["settings"]
    return settings


def describe(trials: Sequence[Trial], search: Search, before: Settings) -> list[str]:
    """Return what was found, in words: each setting, what it reached, and of how many trials it is the best.

    ``before`` are the spec's own settings, as far as it gives them.
    """
    best = best_of(trials, search)
    was = {path: f", was {_shown(value)}" for path, value in before.items() if value is not None}
    lines = [f"{path} = {_shown(value)}{was.get(path, '')}" for path, value in best.settings.items()]
    values = zip(search.objectives, best.values, strict=True)
    reached = ", ".join(f"{name} {show(name, value)}" for name, value in values)
    lines[-1] += f" ({reached}; {_among(trials, search)})"
    return lines


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _among(trials: Sequence[Trial], search: Search) -> str:
    count = f"{len(trials)} trial{'' if len(trials) == 1 else 's'}"
    front = len(front_of(trials, search))
    among = f"best of {count}" if len(search.objectives) == 1 else f"one of {front} on the Pareto front of {count}"
    words = {STOPPED: "stopped early", DIVERGED: "diverged"}
    counts = {word: sum(trial.ended == ended for trial in trials) for ended, word in words.items()}
    return ", ".join([among, *(f"{number} {word}" for word, number in counts.items() if number)])


def describe_last(trials: Sequence[Trial], search: Search) -> str:
    """Return what the last trial reached, and the best so far: ``accuracy 96.9 % (best 97.2 %)``."""
    last = trials[-1]
    values = dict(zip(search.objectives, last.values, strict=True)) if last.values else {}
    reached = ", ".join(f"{name.removeprefix('validation.')} {show(name, value)}" for name, value in values.items())
    if not any(trial.ended == COMPLETE for trial in trials):
        return last.ended
    best = map(show, search.objectives, best_of(trials, search).values)
    return f"{reached or last.ended} (best {', '.join(best)})"


def show(objective: str, value: float) -> str:
    """Return the value of an objective, as it is shown: ``97.2 %``."""
    if objective == PARAMETERS:
        return f"{value:,.0f}"
    return f"{value:.4g}" if objective == LOSS else f"{100 * value:.1f} %"
