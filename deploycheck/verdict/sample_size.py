"""How many observations it takes: to reach a limit at all, and to decide a check that is undecided."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable

from deploycheck.language.reach import MOST_OBSERVATIONS
from deploycheck.language.threshold import Threshold
from deploycheck.lazy import np
from deploycheck.verdict.bounds import FEWEST_REPEATS, bounds
from deploycheck.verdict.resample import why_unbounded
from deploycheck.verdict.samples import (
    Blocks,
    Events,
    Exact,
    Paired,
    Proportion,
    Quantile,
    Quotient,
    Ratios,
    RelativeDrop,
    Repeats,
    Resampled,
    Retained,
    Sample,
    WorstOf,
    sample_size,
    undisturbed,
    value_of,
)
from deploycheck.verdict.sequential import (
    FEWEST_BLOCKS,
    FEWEST_ROUNDS,
    SHARE_OF_PRODUCT,
    TIME_OF_FEW_ROUNDS,
    autocorrelation_time,
    clustering,
    fewest_for_bursts,
    is_more_frequent,
    is_rarer,
    most_events,
    reach_in_deviations,
    time_of_rounds,
    times_in_tail,
)

SKEWED = 2.0
"""Bounds of a statistic whose distances from the value differ by more than this factor are not nearly normal."""
NEAR_END = 0.05
"""A bound is near the end of the scale within this share of the value's distance from the end."""
MOST_NAMED = 10
"""Of many slices or specs, the first are named."""
TOO_CLOSE = "the limit is within the interval, and too close to the value for any realistic sample to decide it"


def what_would_decide(sample: Sample, threshold: Threshold, confidence: float) -> str:
    """Return in a sentence what would decide an undecided sample."""
    limit = threshold.value
    quiet = undisturbed(sample)
    if quiet is not sample and not _is_good_side(sample, limit):
        if not _is_bad_side(quiet, limit):
            return "what a disturbed machine slows can't fail a model: a quieter machine would decide it"
        return what_would_decide(quiet, threshold, confidence)
    match sample:
        case Quantile(probability, values):
            fewest = fewest_requests(1 - probability, confidence)
            if len(values) < fewest and value_of(sample) <= limit:
                return f"{len(values)} requests can't decide it: at least {fewest} are needed"
            to_pass, to_fail = times_in_tail(np.asarray(values), 1 - probability) if values else (1.0, 1.0)
            time = to_pass if value_of(sample) <= limit else to_fail
            slow = tuple(value > limit for value in values)
            return _describe(requests_to_decide(slow, 1 - probability, confidence, time), "requests like these")
        case Events(happened):
            more = requests_to_decide(happened, limit, confidence, _autocorrelation_time(happened))
            return _describe(more, "requests like these")
        case Blocks(values):
            level = 1 - (1 - SHARE_OF_PRODUCT) * (1 - confidence)
            more = means_to_decide(values, _autocorrelation_time(values), FEWEST_BLOCKS, limit, level)
            return _describe(more, "blocks like these")
        case Ratios(values):
            logs, at = tuple(map(math.log, values)), math.log(limit) if limit > 0 else -math.inf
            more = means_to_decide(logs, time_of_rounds(logs), FEWEST_ROUNDS, at, confidence)
            return _describe(more, "rounds like these")
        case Repeats(values) if len(values) < FEWEST_REPEATS:
            return f"{len(values)} seeds are too few: at least {FEWEST_REPEATS} are needed"
        case Repeats():
            return "the limit is within the interval over seeds: more seeds would narrow it"
        case WorstOf():
            return _what_would_decide_worst(sample, threshold, confidence)
        case Quotient(over, under):
            interval = bounds(sample, confidence)
            return _what_would_decide_quotient(value_of(under), value_of(sample), interval, limit, sample_size(over))
        case Resampled():
            return _what_would_decide_resampled(sample, limit, confidence)
        case Exact():
            return ""
        case _:
            return _describe(examples_to_decide(sample, limit, confidence), "examples like these")


def _is_good_side(sample: Sample, limit: float) -> bool:
    """Whether a stream's value is on the fast side of the limit, where disturbances can't have brought it."""
    value = value_of(sample)
    return value >= limit if isinstance(sample, Blocks) else value <= limit


def _is_bad_side(sample: Sample, limit: float) -> bool:
    return bool(sample_size(sample)) and not _is_good_side(sample, limit)


def _describe(more: int | None, of_what: str) -> str:
    if more is None:
        return TOO_CLOSE
    return f"about {more:,} more {of_what} would decide it" if more else f"a few more {of_what} would decide it"


def _what_would_decide_resampled(sample: Resampled, limit: float, confidence: float) -> str:
    if why := why_unbounded(sample, confidence):
        return why
    if not _is_nearly_normal(sample, limit, confidence):
        return "the examples differ too much to say how many more would decide it"
    return _describe(examples_to_decide(sample, limit, confidence), "examples like these")


def _what_would_decide_quotient(
    under: float, value: float, interval: tuple[float, float], limit: float, observations: int
) -> str:
    """Return what would decide a ratio of two that were measured apart: its bounds near it as 1/sqrt(n)."""
    if math.isnan(value):
        return f"the ratio is undefined: it is relative to {under:.4g}"
    bound = interval[1] if limit > value else interval[0]
    if not all(0 < part < math.inf for part in (value, bound, limit)) or math.isclose(value, limit):
        return "the limit is within the interval of the ratio"
    times = (math.log(bound / value) / math.log(limit / value)) ** 2
    return _describe(max(0, math.ceil(observations * (times - 1))), "of each, like these,")


def _what_would_decide_worst(sample: WorstOf, threshold: Threshold, confidence: float) -> str:
    small = {name: n for name, part in sample.slices.items() if (n := sample_size(part)) < sample.at_least}
    if small:
        name = min(small, key=lambda slice: small[slice])
        least = f"at least {sample.at_least} {'is' if sample.at_least == 1 else 'are'} asked for"
        others = f"; {len(small)} slices are too small: {named(small)}" if len(small) > 1 else ""
        return f"slice {name} has {small[name]} examples, {least}{others}"
    limit = threshold.value

    def is_open(part: Sample) -> bool:
        low, high = bounds(part, confidence)
        return low <= limit <= high

    undecided = {name: part for name, part in sample.slices.items() if is_open(part)}
    if not undecided:
        return "the limit is within the interval"
    name = min(undecided, key=lambda slice: sample_size(undecided[slice]))
    return f"slice {name}: {what_would_decide(undecided[name], threshold, confidence)}"


def named(things: Iterable[str]) -> str:
    """Return names as a list, of which the first are shown; no more than those are read."""
    names = list(itertools.islice(things, MOST_NAMED + 1))
    return ", ".join([*names[:MOST_NAMED], *(["..."] if len(names) > MOST_NAMED else [])])


def fewest_requests(share: float, confidence: float) -> int:
    """Return the fewest requests, none of them slow, that show that at most ``share`` (0..1) are slow."""
    return max(fewest_for_rate(share, confidence), fewest_for_bursts(share, confidence))


def fewest_for_rate(limit: float, confidence: float) -> int:
    """Return the fewest independent requests, none of them an event, that show that at most ``limit`` (0..1) are."""
    return _find_first(lambda n: most_events(n, limit, confidence) >= 0) or MOST_OBSERVATIONS


def fewest_rounds(confidence: float) -> int:
    """Return the fewest rounds of two models that bound their ratio at all."""
    found = _find_first(lambda n: math.isfinite(reach_in_deviations(n / TIME_OF_FEW_ROUNDS, confidence)))
    return max(FEWEST_ROUNDS, found or MOST_OBSERVATIONS)


def may_be_settled(sample: Sample, threshold: Threshold, confidence: float) -> bool:
    """Whether a stream would be decided by now if its observations were independent: cheap to ask after each."""
    if not isinstance(sample, Quantile | Events):
        return True
    limit = 1 - sample.probability if isinstance(sample, Quantile) else threshold.value
    quiet = undisturbed(sample)
    return is_rarer(_count_events(sample, threshold.value), sample_size(sample), limit, confidence, 1.0) or (
        is_more_frequent(_count_events(quiet, threshold.value), sample_size(quiet), limit, confidence, 1.0)
    )


def _count_events(sample: Sample, limit: float) -> int:
    """Return how many values of a quantile's stream exceed the limit, or how many events happened."""
    match sample:
        case Quantile(_, values):
            return sum(value > limit for value in values)
        case Events(happened):
            return sum(happened)
        case _:
            return 0


def _is_decided(events: float, total: int, limit: float, confidence: float, time: float) -> bool:
    seen = events, total, limit, confidence, time
    return is_rarer(*seen) or is_more_frequent(*seen)


def requests_to_decide(happened: tuple[bool, ...], limit: float, confidence: float, time: float) -> int | None:
    """Return about how many more requests decide whether events are rarer than ``limit``, if they stay as frequent.

    ``happened`` says of each request so far, in order, whether it was an event; ``time`` is their autocorrelation
    time. None where it would take more than ``MOST_OBSERVATIONS``.
    """
    if not happened:
        return None
    flags = np.asarray(happened, dtype=bool)
    share, thin = float(flags.mean()), max(time, clustering(flags))
    return _count_more(len(happened), lambda n: _is_decided(share * n, n, limit, confidence, thin))


def means_to_decide(values: tuple[float, ...], time: float, fewest: int, limit: float, confidence: float) -> int | None:
    """Return about how many more values decide whether their mean meets ``limit``.

    ``time`` is their autocorrelation time. Fewer than ``fewest`` values never decide it.
    """
    n = len(values)
    if n < 2:
        return None
    centre = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (n - 1))
    found = _find_first(lambda m: deviation * reach_in_deviations(m / time, confidence) < abs(centre - limit), n)
    return None if found is None else max(0, max(found, fewest) - n)


def _autocorrelation_time(values: tuple[float, ...] | tuple[bool, ...]) -> float:
    return autocorrelation_time(np.asarray(values, dtype=float))


def examples_to_decide(sample: Sample, limit: float, confidence: float) -> int | None:
    """Return about how many more examples decide the sample against ``limit``, if they are like those so far.

    None where that can't be said of the sample, where the value is on the limit, or where it would take more than
    ``MOST_OBSERVATIONS``.
    """
    if isinstance(sample, Resampled):
        return _examples_of_statistic(sample, limit, confidence)
    if not isinstance(sample, Proportion | Paired | Retained | RelativeDrop) or value_of(sample) == limit:
        return None

    def is_decided(n: int) -> bool:
        low, high = bounds(_scale_up(sample, n), confidence)
        return low > limit or high < limit

    return _count_more(sample_size(sample), is_decided)


def _examples_of_statistic(sample: Resampled, limit: float, confidence: float) -> int | None:
    """Return how many more examples bring a statistic's bound to the limit: the bound nears it as 1/sqrt(n)."""
    value, (low, high) = value_of(sample), bounds(sample, confidence)
    reach, gap = (value - low, value - limit) if value > limit else (high - value, limit - value)
    if not gap or not math.isfinite(reach) or not _is_nearly_normal(sample, limit, confidence):
        return None
    needed = math.ceil(sample.size * (reach / gap) ** 2)
    return needed - sample.size if needed <= MOST_OBSERVATIONS else None


def _is_nearly_normal(sample: Resampled, limit: float, confidence: float) -> bool:
    """Whether a statistic's bound nears its value as 1/sqrt(n).

    It doesn't where one bound is much further from the value than the other, or the bound on the limit's side is near
    the end of the scale: a few examples then decide the value, such as one that is far from all others.
    """
    value, (low, high) = value_of(sample), bounds(sample, confidence)
    bound, end = (low, sample.lowest) if value > limit else (high, sample.highest)
    is_clipped = math.isfinite(end) and abs(bound - end) <= NEAR_END * abs(value - end)
    near, far = sorted((value - low, high - value))
    return not is_clipped and far <= SKEWED * near


def _scale_up(sample: Proportion | Paired | Retained | RelativeDrop, n: int) -> Sample:
    """Return the sample as it would be with ``n`` observations of the same shares."""
    match sample:
        case Proportion(successes, total, offset=offset, scale=scale):
            return Proportion(round(successes / total * n), n, offset=offset, scale=scale)
        case Paired():
            return _scale_up_pairs(sample, n)
        case Retained(pairs):
            return Retained(_scale_up_pairs(pairs, n))
        case RelativeDrop(pairs):
            return RelativeDrop(_scale_up_pairs(pairs, n))


def _scale_up_pairs(pairs: Paired, n: int) -> Paired:
    lost, gained, right = (round(count / pairs.total * n) for count in (pairs.lost, pairs.gained, pairs.right))
    return Paired(lost, gained, n, right)


def _count_more(now: int, is_enough: Callable[[int], bool]) -> int | None:
    """Return how many more than ``now`` are enough, to about 1 %."""
    if not now:
        return None
    found = _find_first(is_enough, now)
    return None if found is None else max(0, found - now)


def _find_first(is_enough: Callable[[int], bool], start: int = 1) -> int | None:
    """Return about the first number from ``start`` on that is enough (to 1 %, and exactly below 1,000)."""
    enough = max(1, start)
    while not is_enough(enough):
        enough *= 2
        if enough > MOST_OBSERVATIONS:
            return None
    short = enough // 2
    while enough - short > max(1, enough // 1000):
        middle = (short + enough) // 2
        short, enough = (short, middle) if is_enough(middle) else (middle, enough)
    return enough
