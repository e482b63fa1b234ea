"""What can be said about a valid spec before anything is trained.

Which thresholds its samples can't decide, and which variants can't be made of its model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from deploycheck.check import Check
from deploycheck.checks.quality import over_seeds
from deploycheck.extensions import Extensions
from deploycheck.language import SpecError, Threshold
from deploycheck.language.spec import Load
from deploycheck.plan import Plan, is_difference, subject_of, with_needs
from deploycheck.runner.execute import Runner, StepFailed
from deploycheck.runner.measuring import measure_given
from deploycheck.serving.scenarios import MOST_ROUNDS, Scenario
from deploycheck.steps.forms import FORMS, read_misfits
from deploycheck.verdict import (
    FEWEST_REPEATS,
    Events,
    Outcome,
    Quantile,
    Resampled,
    Sample,
    WorstOf,
    decide,
    fewest_for_rate,
    fewest_requests,
    fewest_rounds,
    ratio_of,
    sample_size,
)

if TYPE_CHECKING:
    from deploycheck.stages.data import Dataset
    from deploycheck.stages.examples import Examples
    from deploycheck.stages.tasks import Task


@dataclass(frozen=True)
class Finding:
    """A check that can't be decided as it is written (an error), or that seldom can (a warning); or a note."""

    severity: str
    error: SpecError


def lint(plan: Plan, extensions: Extensions, dataset: Dataset | None, floors: Mapping[str, float]) -> Iterator[Finding]:
    """Yield what is wrong with a plan's thresholds, each at its place, with the number that would be enough.

    ``dataset`` has the test split, where it is known; ``floors`` the smallest visible regression of each timed metric,
    as a share, where it was measured. A threshold ``@ point`` needs no certainty, so it is left out. So are the spec's
    own metrics, because it isn't known what a model without error would have.
    """
    for check in plan.checks:
        if check.threshold is None or check.threshold.point or check.family in plan.spec.metrics:
            continue
        subjects = extensions.metrics[check.family].subjects
        seeds = len(plan.spec.train.seeds)
        if check.family == over_seeds.word.name and seeds < FEWEST_REPEATS:
            what = f"{seeds} seed{'' if seeds == 1 else 's'} can't decide it: it needs at least {FEWEST_REPEATS}"
            yield _error(plan, check, what, "give more `seeds` under `train`")
        if "load" in subjects:
            yield from _budget(plan, check, check.threshold, extensions)
            yield from _noise(plan, check, floors)
        elif dataset is not None and all(subject_of(name).per_example for name in subjects):
            yield from _test_set(plan, check, extensions, dataset)


def _budget(plan: Plan, check: Check, threshold: Threshold, extensions: Extensions) -> Iterator[Finding]:
    """Yield an error where the load test can't have enough requests, even if none is slow and none fails."""
    if plan.spec.serve is None:
        return
    sample, load = extensions.metrics[check.family].sample, plan.spec.serve.load
    level = threshold.confidence or plan.spec.confidence
    if sample is Quantile and check.percentile is not None and check.against:
        budget = _comparisons(check.percentile, extensions.scenarios[load.scenario], load)
        needed = fewest_rounds(level)
        comparisons = f"{budget} comparison{'' if budget == 1 else 's'} of two models"
        what = f"at this percentile {MOST_ROUNDS} rounds give {comparisons}, and it needs {needed}"
        hint = "compare a lower percentile"
    elif sample is Quantile and check.percentile is not None:
        budget, needed = _most_requests(load, extensions), fewest_requests(1 - check.percentile, level)
        what, hint = _requests(budget, needed, load, extensions)
    elif sample is Events and not check.against and 0 < threshold.value < 1:
        budget, needed = _most_requests(load, extensions), fewest_for_rate(threshold.value, level)
        what, hint = _requests(budget, needed, load, extensions)
    else:
        return
    if needed > budget:
        yield _error(plan, check, f"{check.metric} can't be decided at {level:.4g} confidence: {what}", hint)


def _most_requests(load: Load, extensions: Extensions) -> int:
    has_rate = "rate" in extensions.scenarios[load.scenario].fields
    return max(load.most_requests, int(load.least_s * load.rate) if has_rate else 0)


def misfits(plan: Plan, runner: Runner) -> Iterator[Finding]:
    """Yield an error for each variant that can't be made of the model, at its place; models are built for it.

    Such as a student that gives other outputs than its teacher, and a layer to cut out that isn't there.
    """
    if plan.spec.compress is None or not plan.spec.compress.variants:
        return
    steps = {**plan.steps, **with_needs(plan.spec, [FORMS], runner.extensions)}
    try:
        found = read_misfits(runner.step(replace(plan, steps=steps), FORMS).artifact)
    except StepFailed as error:
        yield Finding("error", SpecError(error.what, plan.spec.place("model", key=True), error.hint))
        return
    for misfit in found:
        place = plan.spec.place("compress", "variants", misfit.variant, misfit.method, key=True)
        yield Finding("error", SpecError(misfit.what, place, misfit.hint))


def stalls(plan: Plan, extensions: Extensions) -> Iterator[Finding]:
    """Yield a note on the rarest stall of the server that the spec's load sees, where its length is known.

    A load of ``T`` seconds, which may begin at any time, sees a stall that comes every ``P`` seconds with a chance of
    ``T / P``.
    """
    is_of_latency = any(
        check.percentile is not None
        and check.threshold is not None
        and extensions.metrics[check.family].sample is Quantile
        for check in plan.checks
    )
    lasts = _least_s(plan.spec.serve.load, extensions) if plan.spec.serve and is_of_latency else None
    if lasts is None:
        return
    level = plan.spec.confidence
    seen = f"a load of {lasts:.3g} s sees a stall of the server that comes every {lasts / level:.3g} s"
    what = f"{seen} with a chance of {level:.4g}, and one that comes every {2 * lasts:.3g} s with a chance of 0.5"
    place = plan.spec.place("serve", "load")
    yield Finding("note", SpecError(what, place, "set `min_duration` to see one that comes more rarely"))


def _least_s(load: Load, extensions: Extensions) -> float | None:
    """Return how long a load lasts at least; None where that depends on the server's speed."""
    if load.requests is None or load.min_duration is not None:
        return load.undecided_s or None
    has_rate = "rate" in extensions.scenarios[load.scenario].fields
    return min(load.undecided_s, load.requests / load.rate) if has_rate else None


def _requests(budget: int, needed: int, load: Load, extensions: Extensions) -> tuple[str, str]:
    what = f"it needs {needed:,} requests, none of them over the limit, and there are {budget:,} at most"
    has_rate = "rate" in extensions.scenarios[load.scenario].fields
    lasting = f", which takes {needed / load.rate:,.0f} s at {load.rate:g} /s" if has_rate else ""
    return what, f"set `requests: {needed}` or more{lasting}"


def _comparisons(probability: float, scenario: Scenario, load: Load) -> int:
    """Return how many ratios of a quantile all rounds of a comparison give."""
    rounds = (2 * scenario.requests_per_turn(load),) * MOST_ROUNDS
    same = Quantile(probability, (1.0,) * sum(rounds), rounds)
    return sample_size(ratio_of(same, same))


def _noise(plan: Plan, check: Check, floors: Mapping[str, float]) -> Iterator[Finding]:
    """Yield a warning where a comparison allows less than the noise: it would refuse an equal model."""
    smallest = floors.get(check.metric) if check.against else None
    if smallest is None or check.threshold is None:
        return
    worse = 1 - smallest if check.threshold.comparator.startswith(">") else 1 + smallest
    allowed = check.threshold.value
    inside = allowed > worse if check.threshold.comparator.startswith(">") else allowed < worse
    if inside:
        what = f"{check.threshold.text} is within the noise of this machine: {smallest:.1%} is the least it can see"
        hint = f"an equal model passes from {worse:.1%} on; or gate on a quieter machine"
        yield Finding("warning", SpecError(what, plan.spec.place(*check.path), hint))


def _test_set(plan: Plan, check: Check, extensions: Extensions, dataset: Dataset) -> Iterator[Finding]:
    """Yield an error where the test set is so small that even a model without error would not pass."""
    if check.threshold is None:
        return
    metric, test = extensions.metrics[check.family], dataset.splits["test"]
    given = _without_error(test, metric.subjects, extensions.tasks[plan.spec.task])
    other = given if check.against and not is_difference(metric.subjects) else {}
    measurement = measure_given(metric, check, dataset, given=given, other=other)
    if measurement.unfit:
        yield _error(plan, check, measurement.unfit, "expect another metric")
        return
    if measurement.invalid or _is_resampled(measurement.sample):
        return  # in a model without error nothing varies, so resampling gives no bounds
    verdict = decide(measurement, check.threshold, plan.spec.confidence)
    if verdict.outcome is Outcome.PASS:
        return
    examples = f"on the {len(test):,} test examples"
    if other:
        what = f"even a model without error would not pass {examples} against one that is without error too"
        yield Finding("warning", SpecError(what, plan.spec.place(*check.path), verdict.reason))
    else:
        best = "a model equal to the other" if is_difference(metric.subjects) else "a model without error"
        yield _error(plan, check, f"even {best} would not pass {examples}", verdict.reason)


def _without_error(test: Examples, subjects: frozenset[str], task: Task) -> dict[str, Any]:
    """Return what a metric is given for a model that makes no error."""
    outputs = task.perfect(test.labels)[task.outputs[0]]
    return {subject: test.labels if subject == "labels" else outputs for subject in subjects}


def _is_resampled(sample: Sample) -> bool:
    parts = sample.slices.values() if isinstance(sample, WorstOf) else [sample]
    return any(isinstance(part, Resampled) for part in parts)


def _error(plan: Plan, check: Check, what: str, hint: str) -> Finding:
    return Finding("error", SpecError(what, plan.spec.place(*check.path), hint))
