"""The trials of a search, one after the other. Doesn't import JAX.

Each trial's result is one file, written as a whole. A search that was killed starts from the beginning with these
results in the place of trainings: the sampler draws the same settings again, and so gets into the state in which it
was. So it needs no state of optuna's on disk, and a search ends with the same result whether it was killed or not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploycheck.errors import DeploycheckError
from deploycheck.language.optimize import Optimize, Parameter, Search
from deploycheck.stages.samplers import Sampler
from deploycheck.stages.trials import COMPLETE, Settings, Trial, describe_last
from deploycheck.store.disk import write_whole

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

FEWEST_BEFORE = 5
"""So many trials must be complete before another one is stopped."""

Report = Callable[[float], None]
"""What is called with the objective after each epoch of a trial; it raises ``Hopeless`` to end the trial."""


class Hopeless(Exception):
    """A trial is stopped, because half of the complete ones were better after the same epoch."""


@dataclass(frozen=True)
class Result:
    """How a trial ended, and the values of the objectives; none unless it is complete."""

    ended: str
    values: tuple[float, ...] = ()


Evaluate = Callable[[int, Settings, Report], Result]
"""``evaluate(number, settings, report)`` trains with the settings; ``number`` counts the trials from 0."""


def run(
    section: Optimize, sampler: Sampler, evaluate: Evaluate, scratch: Path, progress: Callable[[str], None]
) -> tuple[Trial, ...]:
    """Do all trials of a search, and return them in order. Those whose result is in ``scratch`` aren't done again.

    A trial is done again only where the sampler now draws other settings for it. Settings that an earlier trial tried
    end as they did there: a training gives the same each time.
    """
    _check_installed()
    search, space = section.search, {path: distribution(parameter) for path, parameter in section.space.items()}
    clock = _Clock()
    trials: list[Trial] = []
    with _quiet():
        study = _study(search, sampler.make(space, search.trials, search.seed))
        for number in range(search.trials):
            drawn = study.ask(dict(space))
            settings = {path: _value(section.space[path], drawn.params[path]) for path in space}
            title = f"optimize: trial {number + 1}/{search.trials}"
            trial = _known(scratch / _file(number), settings, trials)
            if trial is None:
                trial = _evaluate(evaluate, number, settings, drawn)
                write_whole(scratch / _file(number), json.dumps(asdict(trial)))
                trials.append(trial)
                left = clock.left(search.trials - len(trials))
                progress(f"{title}: {describe_last(trials, search)}, {left:.0f} s left")
            else:
                for epoch, value in enumerate(trial.reports):
                    drawn.report(value, epoch)
                trials.append(trial)
                progress(f"{title}: was done before")
            _tell(study, drawn, trial)
    return tuple(trials)


def _check_installed() -> None:
    try:
        import optuna  # noqa: F401 - installed or not
    except ImportError as error:
        raise DeploycheckError(
            f"a search needs optuna: {error}", hint="install it: pip install 'deploycheck[optimize]'"
        ) from error


def distribution(parameter: Parameter) -> BaseDistribution:
    """Return a parameter as optuna's distribution; that of a choice is over the indices of its values."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match parameter.kind:
        case "choice":
            return CategoricalDistribution(range(len(parameter.values)))
        case "integers":
            return IntDistribution(*parameter.values)
    low, high = parameter.values
    return FloatDistribution(low, high, log=parameter.kind == "log")


def _value(parameter: Parameter, drawn: Any) -> Any:
    return parameter.values[drawn] if parameter.kind == "choice" else drawn


def _study(search: Search, sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    import optuna

    up, down = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
    directions = [up] * len(search.maximize) + [down] * len(search.minimize)
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if search.stop_hopeless:
        # The median rule of Golovin et al., Google Vizier: A Service for Black-Box Optimization, KDD 2017.
        pruner = optuna.pruners.MedianPruner(n_startup_trials=FEWEST_BEFORE, n_min_trials=FEWEST_BEFORE)
    return optuna.create_study(directions=directions, sampler=sampler, pruner=pruner)


def _evaluate(evaluate: Evaluate, number: int, settings: Settings, drawn: optuna.Trial) -> Trial:
    reports: list[float] = []

    def report(value: float) -> None:
        drawn.report(value, len(reports))
        reports.append(value)
        if drawn.should_prune():
            raise Hopeless

    result = evaluate(number, settings, report)
    return Trial(settings=settings, reports=tuple(reports), ended=result.ended, values=result.values)


def _tell(study: optuna.Study, drawn: optuna.Trial, trial: Trial) -> None:
    """Tell optuna how a trial ended.

    One without values counts as worse than all others. To optuna it is a pruned one, because samplers ignore failed
    ones, and would try the same again.
    """
    from optuna.trial import TrialState

    if trial.ended == COMPLETE:
        study.tell(drawn, trial.values)
    else:
        study.tell(drawn, state=TrialState.PRUNED)


def _file(number: int) -> str:
    return f"trial-{number}.json"


def _known(file: Path, settings: Settings, before: Sequence[Trial]) -> Trial | None:
    """Return how a trial with these settings ended: the one in its file, or one before it; None if there is none."""
    try:
        written = [Trial.from_plain(json.loads(file.read_bytes()))]
    except (OSError, ValueError):  # it wasn't done; or a power cut left an empty file
        written = []
    return next((trial for trial in (*written, *before) if trial.settings == settings), None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Have optuna say nothing of its own within the block."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


@dataclass
class _Clock:
    """How long the trials take that are done in this process."""

    began: float = field(default_factory=time.monotonic)
    done: int = 0

    def left(self, trials: int) -> float:
        """Return the seconds that further trials will take, when one more is done."""
        self.done += 1
        return (time.monotonic() - self.began) / self.done * trials
