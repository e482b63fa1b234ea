"""How many observations it takes: for a limit to be within reach at all, and to settle a call that is too close."""

from __future__ import annotations

import math
from collections.abc import Callable

from deploycheck.language.threshold import Threshold
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
    value_of,
)
from deploycheck.verdict.sequential import (
    FEWEST_BLOCKS,
    FEWEST_ROUNDS,
    SHARE_OF_PRODUCT,
    TIME_OF_FEW_ROUNDS,
    autocorrelation_time,
    clustering,
    is_more_frequent,
    is_rarer,
    most_events,
    reach_in_deviations,
    time_in_tail,
    time_of_rounds,
)

MOST = 100_000_000
"""Past this many the answer is 'more than anyone has'."""


def what_would_decide(sample: Sample, threshold: Threshold, confidence: float) -> str:
    """Say in a sentence what would settle an undecided sample."""
    import numpy as np

    limit = threshold.value
    match sample:
        case Quantile(probability, values):
            fewest = fewest_requests(1 - probability, confidence)
            if len(values) < fewest and value_of(sample) <= limit:
                return f"{len(values)} requests can't decide it: at least {fewest} are needed"
            time = time_in_tail(np.asarray(values), 1 - probability) if values else 1.0
            slow = tuple(value > limit for value in values)
            return _said(requests_to_decide(slow, 1 - probability, confidence, time))
        case Events(happened):
            return _said(requests_to_decide(happened, limit, confidence, _time_of(happened)))
        case Blocks(values):
            level = 1 - (1 - SHARE_OF_PRODUCT) * (1 - confidence)
            more = means_to_decide(values, _time_of(values), FEWEST_BLOCKS, limit, level)
            return _said(more, "blocks like these")
        case Ratios(values):
            logs, at = tuple(map(math.log, values)), math.log(limit) if limit > 0 else -math.inf
            more = means_to_decide(logs, time_of_rounds(logs), FEWEST_ROUNDS, at, confidence)
            return _said(more, "rounds like these")
        case Repeats(values) if len(values) < FEWEST_REPEATS:
            return f"{len(values)} seeds are too few to tell: {FEWEST_REPEATS} at least"
        case Repeats():
            return "the limit lies within the interval over seeds: more seeds would narrow it"
        case WorstOf():
            return _worst(sample, threshold, confidence)
        case Quotient(over, under):
            return _quotient(value_of(under), value_of(sample), bounds(sample, confidence), limit, sample_size(over))
        case Resampled() if why := why_unbounded(sample, confidence):
            return why
        case Exact():
            return ""
        case _:
            return _said(examples_to_decide(sample, limit, confidence), "examples like these")


def _said(more: int | None, what: str = "requests like these") -> str:
    if more is None:
        return "the limit lies within the interval, too close to the value to be told apart from it"
    return f"about {more:,} more {what} would decide it" if more else f"a few more {what} would decide it"


def _quotient(under: float, value: float, interval: tuple[float, float], limit: float, observations: int) -> str:
    """Say what would settle a ratio of two that were measured apart: their bounds near it as 1/sqrt(n)."""
    if math.isnan(value):
        return f"there is no ratio to what came to {under:.4g}"
    bound = interval[1] if limit > value else interval[0]
    if not all(0 < part < math.inf for part in (value, bound, limit)) or math.isclose(value, limit):
        return "the limit lies within the interval of the ratio"
    times = (math.log(bound / value) / math.log(limit / value)) ** 2
    return _said(max(0, math.ceil(observations * (times - 1))), "of each, like these,")


def _worst(sample: WorstOf, threshold: Threshold, confidence: float) -> str:
    small = {name: n for name, part in sample.slices.items() if (n := sample_size(part)) < sample.at_least}
    if small:
        name = min(small, key=lambda slice: small[slice])
        others = f"; {len(small)} slices are too small" if len(small) > 1 else ""
        return f"slice {name} has {small[name]} examples, at least {sample.at_least} are asked for{others}"
    limit = threshold.value

    def open_at(part: Sample) -> bool:
        low, high = bounds(part, confidence)
        return low <= limit <= high

    unsettled = {name: part for name, part in sample.slices.items() if open_at(part)}
    if not unsettled:
        return "the limit lies within the interval"
    name = min(unsettled, key=lambda slice: sample_size(unsettled[slice]))
    return f"slice {name}: {what_would_decide(unsettled[name], threshold, confidence)}"


def fewest_requests(share: float, confidence: float) -> int:
    """Return the fewest independent requests, none of them slow, that show that at most ``share`` (0..1) are."""
    return _first(lambda n: most_events(n, share, confidence) >= 0) or MOST


def fewest_rounds(confidence: float) -> int:
    """Return the fewest rounds of two models that bound their ratio at all."""
    found = _first(lambda n: math.isfinite(reach_in_deviations(n / TIME_OF_FEW_ROUNDS, confidence)))
    return max(FEWEST_ROUNDS, found or MOST)


def may_be_settled(sample: Sample, threshold: Threshold, confidence: float) -> bool:
    """Whether a stream could be decided by now, were its observations independent: cheap to ask after each of them."""
    match sample:
        case Quantile(probability, values):
            events, limit = sum(value > threshold.value for value in values), 1 - probability
        case Events(happened):
            events, limit = sum(happened), threshold.value
        case _:
            return True
    found = events, sample_size(sample), limit, confidence, 1.0
    return is_rarer(*found) or is_more_frequent(*found)


def requests_to_decide(happened: tuple[bool, ...], limit: float, confidence: float, time: float) -> int | None:
    """Return about how many more requests settle whether events are rarer than ``limit``, if they go on as they did.

    ``happened`` says of each so far, in order, whether it was one; ``time`` is their autocorrelation time.
    """
    import numpy as np

    if not happened:
        return None
    flags = np.asarray(happened, dtype=bool)
    share, thin = float(flags.mean()), max(time, clustering(flags))

    def settled(n: int) -> bool:
        found = share * n, n, limit, confidence, thin
        return is_rarer(*found) or is_more_frequent(*found)

    return _more(len(happened), settled)


def means_to_decide(values: tuple[float, ...], time: float, fewest: int, limit: float, confidence: float) -> int | None:
    """Return about how many more values settle whether their mean meets ``limit``.

    ``time`` is their autocorrelation time; of fewer than ``fewest`` nothing is concluded.
    """
    n = len(values)
    if n < 2:
        return None
    centre = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (n - 1))
    found = _first(lambda m: deviation * reach_in_deviations(m / time, confidence) < abs(centre - limit), n)
    return None if found is None else max(0, max(found, fewest) - n)


def _time_of(values: tuple[float, ...] | tuple[bool, ...]) -> float:
    import numpy as np

    return autocorrelation_time(np.asarray(values, dtype=float))


def examples_to_decide(sample: Sample, limit: float, confidence: float) -> int | None:
    """Return about how many examples more would settle the sample against ``limit``.

    It assumes that what comes is like what came. None where the kind has no such answer, where the value sits
    on the limit, or where it would take more than ``MOST``.
    """
    if isinstance(sample, Resampled):
        return _as_the_root_of_their_number(sample, limit, confidence)
    if not isinstance(sample, Proportion | Paired | Retained | RelativeDrop) or value_of(sample) == limit:
        return None

    def settled(n: int) -> bool:
        low, high = bounds(_grown(sample, n), confidence)
        return low > limit or high < limit

    return _more(sample_size(sample), settled)


def _as_the_root_of_their_number(sample: Resampled, limit: float, confidence: float) -> int | None:
    """Return how many more examples bring a statistic's bound to the limit, the bound nearing it as 1/sqrt(n)."""
    value, (low, high) = value_of(sample), bounds(sample, confidence)
    reach, gap = (value - low, value - limit) if value > limit else (high - value, limit - value)
    if not gap or not math.isfinite(reach):
        return None
    needed = math.ceil(sample.size * (reach / gap) ** 2)
    return needed - sample.size if needed <= MOST else None


def _grown(sample: Proportion | Paired | Retained | RelativeDrop, n: int) -> Sample:
    """Return the sample as it would look with ``n`` observations of the same shares."""
    match sample:
        case Proportion(successes, total, offset, scale):
            return Proportion(round(successes / total * n), n, offset, scale)
        case Paired():
            return _grown_pairs(sample, n)
        case Retained(pairs):
            return Retained(_grown_pairs(pairs, n))
        case RelativeDrop(pairs):
            return RelativeDrop(_grown_pairs(pairs, n))


def _grown_pairs(pairs: Paired, n: int) -> Paired:
    lost, gained, right = (round(count / pairs.total * n) for count in (pairs.lost, pairs.gained, pairs.right))
    return Paired(lost, gained, n, right)


def _more(now: int, settled: Callable[[int], bool]) -> int | None:
    """Return how many more than ``now`` settle it, to about 1 %."""
    if not now:
        return None
    found = _first(settled, now)
    return None if found is None else max(0, found - now)


def _first(holds: Callable[[int], bool], start: int = 1) -> int | None:
    """Return about the first number from ``start`` on for which it holds (to 1 %, and exactly if below 1,000)."""
    enough = max(1, start)
    while not holds(enough):
        enough *= 2
        if enough > MOST:
            return None
    short = enough // 2
    while enough - short > max(1, enough // 1000):
        middle = (short + enough) // 2
        short, enough = (short, middle) if holds(middle) else (middle, enough)
    return enough
