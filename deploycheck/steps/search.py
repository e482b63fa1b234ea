"""``search``: the settings of the training that are best on the validation split, of those that a spec lists."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from deploycheck.errors import DeploycheckError
from deploycheck.language.optimize import Optimize
from deploycheck.language.vocabulary import LOSS, PARAMETERS
from deploycheck.ref import Ref, Source
from deploycheck.stages import search, trials
from deploycheck.stages.trials import COMPLETE, DIVERGED, STOPPED, Settings
from deploycheck.steps.data import DATA
from deploycheck.steps.found import SEARCH, overlaid, written_before
from deploycheck.steps.kind import Making, Metadata, StepKind
from deploycheck.steps.training import (
    TrainingSettings,
    TrainingStep,
    builder_of,
    job_of,
    start_of,
)
from deploycheck.store import fingerprint

if TYPE_CHECKING:
    from deploycheck.check import Check
    from deploycheck.extensions import Extensions
    from deploycheck.language import Spec
    from deploycheck.stages.data import Dataset
    from deploycheck.stages.training import Epoch


class SearchSettings(TrainingSettings):
    """A training, and what of it is searched for."""

    optimize: Optimize


class SearchStep(StepKind):
    """Its artifact is the best settings, and every trial (``stages/search.py``). It reads no test examples."""

    name = "search"
    product = True
    isolated = True
    settings_type = SearchSettings

    def stages(self, spec: Spec) -> Iterable[tuple[str, str | None, Ref]]:
        """Yield the optimize stage, if the spec has one."""
        if spec.optimize:
            yield "optimize", None, SEARCH

    def needs(self, spec: Spec, ref: Ref, extensions: Extensions) -> Mapping[str, Ref]:
        """Return the data, and the weights that each training starts from, if there are."""
        del ref, extensions
        return {"data": DATA, **start_of(spec)}

    def settings(self, spec: Spec, ref: Ref, checks: Sequence[Check]) -> SearchSettings:
        """Return the training's settings before the search, and the optimize section."""
        training = TrainingStep().settings(spec, ref, checks)
        return SearchSettings(**dict(training), optimize=spec.optimize)

    def sources(self, settings: SearchSettings) -> Iterable[Source]:
        """Yield what the training uses, and the sampler."""
        yield from settings.sources()
        yield Source("samplers", settings.optimize.search.sampler)

    def make(self, making: Making) -> Metadata:
        """Train with the settings of each trial, one seed, and keep those that are best on validation."""
        from deploycheck.stages import data

        settings: SearchSettings = making.settings
        section = settings.optimize
        dataset = data.read(making.inputs["data"].path, ("train", "validation"))

        def evaluate(number: int, found: Settings, report: search.Report) -> search.Result:
            with _named(f"trial {number + 1} ({', '.join(f'{path}={value}' for path, value in found.items())})"):
                return _evaluate(making, dataset, number, found, report)

        done = search.run(
            section,
            making.extensions.samplers[section.search.sampler],
            evaluate,
            making.scratch,
            making.progress,
        )
        trials.write(done, section.search, making.out)
        return {"remarks": trials.describe(done, section.search, written_before(settings, section.space))}


@contextmanager
def _named(trial: str) -> Iterator[None]:
    """Have an error within the block say in which trial it came."""
    try:
        yield
    except DeploycheckError as error:
        raise DeploycheckError(f"{trial}: {error.what}", where=error.where, hint=error.hint) from error
    except Exception as error:  # of the user's code
        error.add_note(f"in {trial}")
        raise


def _evaluate(making: Making, dataset: Dataset, number: int, found: Settings, report: search.Report) -> search.Result:
    """Train the first seed with the settings of one trial, and return its objectives at the epoch that is kept."""
    import jax

    from deploycheck.stages import train

    settings = overlaid(making.settings, found)
    objectives = settings.optimize.search.objectives
    config = settings.first
    folder = making.scratch / f"trial-{number}-{fingerprint(found)}"  # a checkpoint of other settings is another one
    title = f"optimize: trial {number + 1}/{settings.optimize.search.trials}"

    build = builder_of(config, dataset, making)

    def observe(epoch: Epoch) -> None:
        if settings.optimize.search.stop_hopeless:
            report(_value(objectives[0], epoch, 0))

    job = replace(job_of(settings, dataset, making.extensions), observe=observe)
    try:
        (run,) = train.train(build, job, (config.seed,), folder, lambda line: making.progress(f"{title}: {line}"))
    except search.Hopeless:
        return search.Result(STOPPED)
    except train.Diverged:
        return search.Result(DIVERGED)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    size = sum(leaf.size for leaf in jax.tree.leaves(run.params))
    return search.Result(COMPLETE, tuple(_value(name, run.report.kept_epoch, size) for name in objectives))


def _value(objective: str, epoch: Epoch, parameters: int) -> float:
    """Return an objective at an epoch of a model with so many parameters."""
    match objective:
        case _ if objective == PARAMETERS:
            return float(parameters)
        case _ if objective == LOSS:
            return epoch.validation_loss
    return epoch.scores[objective.removeprefix("validation.")]
