"""What can be said of a valid spec before anything is run: thresholds that its samples can't decide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploycheck.checks.quality import over_seeds
from deploycheck.language import SpecError
from deploycheck.language.spec import Load
from deploycheck.plan import EXAMPLES, Check, Plan, is_difference
from deploycheck.runner.measure import MOST_ROUNDS, requests_a_turn
from deploycheck.runner.run import Runner, measure_examples
from deploycheck.serving.report import LoadReport
from deploycheck.verdict import (
    FEWEST_REPEATS,
    Events,
    Outcome,
    Quantile,
    Resampled,
    Sample,
    WorstOf,
    decide,
    fewest_requests,
    fewest_rounds,
    ratio_of,
    sample_size,
)

if TYPE_CHECKING:
    from deploycheck.stages.examples import Examples


@dataclass(frozen=True)
class Finding:
    """A check that can't be decided as it stands (an error), or seldom (a warning)."""

    severity: str
    error: SpecError


def lint(runner: Runner, plan: Plan, test: Examples | None, floors: Mapping[str, float]) -> Iterator[Finding]:
    """Yield what is wrong with a plan's thresholds, each where it stands, with the number that would do.

    ``test`` is the test split, where it is known; ``floors`` the smallest visible regression of each timed metric,
    as a share, where it was measured. A threshold ``@ point`` asks for no certainty, and gets none.
    """
    for check in plan.checks:
        if check.threshold is None or check.threshold.point:
            continue
        subjects = runner.metric_of(plan, check).subjects
        seeds = len(plan.spec.train.seeds)
        if check.family == over_seeds.word.name and seeds < FEWEST_REPEATS:
            what = f"{seeds} seed{'' if seeds == 1 else 's'} can't decide it: {FEWEST_REPEATS} at least"
            yield _error(plan, check, what, "say more `seeds` under `train`")
        if "load" in subjects:
            yield from _budget(runner, plan, check)
            yield from _noise(plan, check, floors)
        elif test is not None and subjects <= EXAMPLES and check.family not in plan.spec.metrics:
            yield from _test_set(runner, plan, check, test)


def _budget(runner: Runner, plan: Plan, check: Check) -> Iterator[Finding]:
    """A percentile or a rate takes so many requests to show, even where none is slow and none fails."""
    if check.threshold is None or plan.spec.serve is None:
        return
    percentile = {} if check.percentile is None else {"percentile": check.percentile}
    level, load = check.threshold.confidence or plan.spec.confidence, plan.spec.serve.load
    match runner.metric_of(plan, check).measure(load=LoadReport(), **percentile).sample:
        case Quantile(probability) if check.against:
            budget, needed = _comparisons(probability, load), fewest_rounds(level)
            comparisons = f"{budget} comparison{'' if budget == 1 else 's'} of two models"
            what = f"so far out, {MOST_ROUNDS} rounds make {comparisons}, and it takes {needed}"
            hint = "compare a lower percentile"
        case Quantile(probability):
            budget, needed = load.requests, fewest_requests(1 - probability, level)
            what, hint = _requests(budget, needed, load)
        case Events() if not check.against and 0 < check.threshold.value < 1:
            budget, needed = load.requests, fewest_requests(check.threshold.value, level)
            what, hint = _requests(budget, needed, load)
        case Events() if not check.against and check.threshold.value <= 0:
            what, hint = "no number of requests shows that none ever fails", 'count them: `errors: "== 0"`'
            yield _error(plan, check, f"{check.metric} can't be decided: {what}", hint)
            return
        case _:
            return
    if needed > budget:
        yield _error(plan, check, f"{check.metric} can't be decided at {level:.4g} confidence: {what}", hint)


def _requests(budget: int, needed: int, load: Load) -> tuple[str, str]:
    what = f"it takes {needed:,} requests, none of them over the limit, and there are {budget:,} at most"
    lasting = f", which takes {needed / load.rate:,.0f} s at {load.rate:g} /s" if load.scenario == "server" else ""
    return what, f"say `requests: {needed}` or more{lasting}"


def _comparisons(probability: float, load: Load) -> int:
    """Return how many ratios of a quantile all rounds of a comparison give."""
    rounds = (2 * requests_a_turn(load),) * MOST_ROUNDS
    same = Quantile(probability, (1.0,) * sum(rounds), rounds)
    return sample_size(ratio_of(same, same))


def _noise(plan: Plan, check: Check, floors: Mapping[str, float]) -> Iterator[Finding]:
    """A comparison that allows less than what an artifact differs from itself by would refuse an equal model."""
    smallest = floors.get(check.metric) if check.against else None
    if smallest is None or check.threshold is None:
        return
    worse = 1 - smallest if check.threshold.comparator.startswith(">") else 1 + smallest
    allowed = check.threshold.value
    inside = allowed > worse if check.threshold.comparator.startswith(">") else allowed < worse
    if inside:
        what = f"{check.threshold.text} lies within the noise of this machine: {smallest:.1%} is the least it can see"
        hint = f"an equal model passes from {worse:.1%} on; or gate on a quieter machine"
        yield Finding("warning", SpecError(what, plan.spec.place(*check.path), hint))


def _test_set(runner: Runner, plan: Plan, check: Check, test: Examples) -> Iterator[Finding]:
    """What even a model that never errs doesn't pass, the test set is too small for.

    Of a metric of the user's own nobody knows what such a model comes to.
    """
    if check.threshold is None:
        return
    metric = runner.metric_of(plan, check)
    given = _without_error(test, metric.subjects)
    measurement = measure_examples(metric, check, test if check.slices else None, given, given)
    if measurement.invalid or _is_resampled(measurement.sample):
        return  # nothing varies in a model without error, so that resampling says nothing
    verdict = decide(measurement, check.threshold, plan.spec.confidence)
    if verdict.outcome is Outcome.PASS:
        return
    examples = f"on the {len(test):,} test examples"
    if check.against and not is_difference(metric.subjects):
        what = f"even a model without error would not pass {examples} against one that is without error too"
        yield Finding("warning", SpecError(what, plan.spec.place(*check.path), verdict.reason))
    else:
        best = "a model equal to the one it is held to" if is_difference(metric.subjects) else "a model without error"
        yield _error(plan, check, f"even {best} would not pass {examples}", verdict.reason)


def _without_error(test: Examples, subjects: frozenset[str]) -> dict[str, Any]:
    import numpy as np

    if np.issubdtype(test.labels.dtype, np.floating):
        outputs = test.labels[:, None]
    else:
        outputs = np.eye(max(2, int(test.labels.max()) + 1), dtype=np.float32)[test.labels]
    return {subject: test.labels if subject == "labels" else outputs for subject in subjects}


def _is_resampled(sample: Sample) -> bool:
    parts = sample.slices.values() if isinstance(sample, WorstOf) else [sample]
    return any(isinstance(part, Resampled) for part in parts)


def _error(plan: Plan, check: Check, what: str, hint: str) -> Finding:
    return Finding("error", SpecError(what, plan.spec.place(*check.path), hint))
