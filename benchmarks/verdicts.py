"""How often the verdicts are wrong, and how many samples they take, by simulated gates.

    python benchmarks/verdicts.py [--gates 2000] [--row latency]

Each row is a model whose true value is known: just on the wrong side of its threshold, just on the right side, and
well clear of it either way. Beside the gate's own verdict stand, on the same streams,

- a fixed-sample test of equal confidence, whose size is planned to tell a model at half or twice the allowed share
  (for means: one deviation of a block in four from the limit) from the limit nine times in ten. On a dependent
  stream it is told the true autocorrelation time, without which its confidence would not be equal; it takes the
  budget where that is less than it planned,
- MLPerf LoadGen's early-stopping rule (99 %, none of it for failing), applied at every look, which takes every
  stream for independent,
- Wald's sequential probability ratio test told the truth: the expected samples of the best test there can be, for
  dependent streams times their true autocorrelation time (the stream's, or that of one just at the limit, which it
  must be told from, whichever is longer). Just beside the threshold that is far more than any budget.
"""

from __future__ import annotations

import argparse
import functools
import math
import multiprocessing
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import signal, special

from deploycheck.language import Dimension
from deploycheck.language.threshold import Threshold
from deploycheck.verdict import (
    Blocks,
    Events,
    Measurement,
    Outcome,
    Paired,
    Proportion,
    Quantile,
    Ratios,
    Sample,
    decide,
    is_decided,
    looks,
    ratio_of,
)
from deploycheck.verdict.sequential import fewest_events, most_events

CONFIDENCE = 0.95
MLPERF = 0.99
POWER = 0.9
CHUNK = 250
COLUMNS = (
    "", "true value", "false passes", "false blocks", "undecided", "median samples", "of Wald's",
    "fixed: wrong", "undecided", "samples", "LoadGen: wrong", "median samples",
)  # fmt: skip
Draw = Callable[[np.random.Generator, int, int], np.ndarray]


@dataclass(frozen=True)
class Row:
    """One kind of gate on one model: how its streams are drawn (``[gates, n]``), and what is true of it.

    ``best`` is what Wald's test takes of independent observations, ``time`` the true autocorrelation time.
    """

    name: str
    truth: str
    good: bool
    draw: Draw
    sample: Callable[[np.ndarray], Sample]
    threshold: Threshold
    budget: int
    best: float | None
    slow: Callable[[np.ndarray], np.ndarray] | None = None
    share: float = 0.0
    time: float = 1.0
    fixed: bool = False
    alone: bool = False


@dataclass(frozen=True)
class Tally:
    """What a rule came to over all gates of a row."""

    passed: float
    failed: float
    samples: float


# How streams are drawn


def normal(random: np.random.Generator, gates: int, n: int, correlation: float = 0.0) -> np.ndarray:
    """Draw standard normal streams, autoregressive of order 1."""
    drawn = random.standard_normal((gates, n))
    if not correlation:
        return drawn
    drawn[:, 1:] *= math.sqrt(1 - correlation**2)
    return signal.lfilter([1.0], [1.0, -correlation], drawn, axis=1)


def log_normal(random: np.random.Generator, gates: int, n: int, correlation: float = 0.0) -> np.ndarray:
    """Draw latencies whose logarithms are normal: median 5 ms."""
    return 0.005 * np.exp(0.5 * normal(random, gates, n, correlation))


def bimodal(random: np.random.Generator, gates: int, n: int) -> np.ndarray:
    """Draw latencies of which one in fifty takes another path, some eight times as long."""
    long = random.random((gates, n)) < 0.02
    return np.where(long, 8.0, 1.0) * log_normal(random, gates, n)


def queue(random: np.random.Generator, gates: int, n: int, load: float = 0.5) -> np.ndarray:
    """Draw the time in a queue with Poisson arrivals and log-normal service of 1 on average (Lindley's recursion)."""
    warm = 500
    gaps = random.exponential(1 / load, (gates, n + warm))
    service = np.exp(0.3 * random.standard_normal((gates, n + warm)) - 0.045)
    waits, waiting = np.empty((gates, n + warm)), np.zeros(gates)
    for step in range(n + warm):
        waits[:, step] = waiting + service[:, step]
        waiting = np.maximum(0.0, waits[:, step] - gaps[:, step])
    return waits[:, warm:]


@functools.cache
def long_run(draw: Draw) -> np.ndarray:
    """Return many long streams of a kind, to read its true quantiles and autocorrelation from."""
    return draw(np.random.default_rng(12345), 200, 20_000)


def autocorrelation_time(flags: np.ndarray) -> float:
    """Return ``1 + 2 * sum(autocorrelations)`` of many long streams, each ``[n]``."""
    centred = flags - flags.mean()
    n = flags.shape[1]
    spectrum = np.abs(np.fft.rfft(centred, 2 * n)) ** 2
    covariance = np.fft.irfft(spectrum).mean(axis=0)[: n // 10]
    time = 1.0
    for lag in range(1, len(covariance)):
        time += 2 * covariance[lag] / covariance[0]
        if lag > 6 * time:
            break
    return time


def time_above(draw: Draw, value: float) -> float:
    """Return the true autocorrelation time of lying above a value."""
    above = long_run(draw) > value
    return autocorrelation_time(above.astype(float)) if above.any() else 1.0


# The rows


def divergence(true: float, limit: float) -> float:
    """Return the information, in nats, that one observation gives against the limit."""
    pairs = ((true, limit), (1 - true, 1 - limit))
    return sum(a * math.log(a / b) for a, b in pairs if a > 0)


def wald(information: float) -> float:
    """Return the expected samples of the test that is told the truth (Wald, Sequential Analysis, 1947)."""
    return -math.log(1 - CONFIDENCE) / information if information else math.inf


def threshold(comparator: str, value: float, dimension: Dimension) -> Threshold:
    return Threshold(comparator, value, "", dimension)


def latency_rows(name: str, draw: Draw, budget: int = 5000, probability: float = 0.99) -> Iterator[Row]:
    allowed = 1 - probability
    for truth, share in (
        ("just worse", 1.05 * allowed),
        ("just better", 0.95 * allowed),
        ("clearly better", allowed / 10 if allowed < 0.1 else allowed / 2),
        ("clearly worse", 5 * allowed if allowed < 0.1 else (1 + allowed) / 2),
        *(([("none slow", 0.0), ("half slow", 0.5)]) if name == "log-normal" else []),
    ):
        streams = long_run(draw)
        limit = float(np.quantile(streams, 1 - share))
        time = max(1.0, time_above(draw, limit), time_above(draw, float(np.quantile(streams, probability))))
        yield Row(
            f"p{100 * probability:g} {name}", truth, share <= allowed, draw,
            lambda x: Quantile(probability, tuple(x.tolist())), threshold("<=", limit, Dimension.TIME), budget,
            wald(divergence(share, allowed)), functools.partial(np.less, limit), allowed, time,
        )  # fmt: skip


def error_rows() -> Iterator[Row]:
    limit = 0.001
    for truth, rate in (
        ("just worse", 0.00105),
        ("just better", 0.00095),
        ("clearly better", 0.0),
        ("clearly worse", 0.005),
    ):
        draw = functools.partial(_flags, rate=rate)
        yield Row(
            "error rate", truth, rate <= limit, draw, lambda x: Events(tuple(x.tolist())),
            threshold("<=", limit, Dimension.PROPORTION), 20_000, wald(divergence(rate, limit)),
            functools.partial(np.equal, True), limit,
        )  # fmt: skip


def _flags(random: np.random.Generator, gates: int, n: int, rate: float) -> np.ndarray:
    return random.random((gates, n)) < rate


def _blocks(
    random: np.random.Generator, gates: int, n: int, mean: float, spread: float, correlation: float
) -> np.ndarray:
    return mean + spread * normal(random, gates, n, correlation)


def throughput_rows(correlation: float = 0.0) -> Iterator[Row]:
    limit, spread = 500.0, 100.0
    time = (1 + correlation) / (1 - correlation)
    for truth, mean in (
        ("just worse", 495.0),
        ("just better", 505.0),
        ("clearly better", 550.0),
        ("clearly worse", 450.0),
    ):
        draw = functools.partial(_blocks, mean=mean, spread=spread, correlation=correlation)
        yield Row(
            "throughput" + (" dependent" if correlation else ""), truth, mean >= limit, draw,
            lambda x: Blocks(tuple(x.tolist())), threshold(">=", limit, Dimension.RATE), 400,
            wald(((mean - limit) / spread) ** 2 / 2), time=time,
        )  # fmt: skip


def speedup_rows(correlation: float = 0.0) -> Iterator[Row]:
    limit, spread = 1.2, 0.1
    time = (1 + correlation) / (1 - correlation)
    for truth, ratio in (
        ("just worse", 1.19),
        ("just better", 1.21),
        ("clearly better", 1.26),
        ("clearly worse", 1.14),
    ):
        draw = functools.partial(_blocks, mean=math.log(ratio), spread=spread, correlation=correlation)
        yield Row(
            "speed-up" + (" dependent" if correlation else ""), truth, ratio >= limit, draw,
            lambda x: Ratios(tuple(np.exp(x).tolist())), threshold(">=", limit, Dimension.MULTIPLE), 400,
            wald((math.log(ratio / limit) / spread) ** 2 / 2), time=time,
        )  # fmt: skip


def _rounds(random: np.random.Generator, gates: int, n: int, ratio: float, spread: float) -> np.ndarray:
    """Draw rounds of two models on a machine that drifts: ``[gates, rounds, model, request]``.

    The p99 of the first is ``ratio`` times the second's; the logarithms of its latencies have the deviation ``spread``,
    those of the second 0.5.
    """
    drift = 0.2 * normal(random, gates, n, 0.9)[:, :, None]
    drawn = random.standard_normal((2, gates, n, 200))
    tail = special.ndtri(0.99)
    first = ratio * np.exp(spread * (drawn[0] - tail) + drift)
    return np.stack([first, np.exp(0.5 * (drawn[1] - tail) + drift)], axis=2)


def _ratio_of_p99(rounds: np.ndarray) -> Sample:
    size = rounds.shape[2]
    sides = (tuple(rounds[:, side].ravel().tolist()) for side in (0, 1))
    return ratio_of(*(Quantile(0.99, side, (size,) * len(rounds)) for side in sides))


def ratio_rows(spread: float = 0.5) -> Iterator[Row]:
    limit, rounds = 1.1, 60
    for truth, ratio in (
        ("just worse", 1.11),
        ("just better", 1.09),
        ("clearly better", 0.95),
        ("clearly worse", 1.3),
    ):
        yield Row(
            "p99 of baseline" + (", longer tail" if spread > 0.5 else ""), truth, ratio <= limit,
            functools.partial(_rounds, ratio=ratio, spread=spread), _ratio_of_p99,
            threshold("<=", limit, Dimension.PROPORTION), rounds, None, alone=True,
        )  # fmt: skip


def accuracy_rows(n: int = 2000) -> Iterator[Row]:
    for truth, share in (
        ("just worse", 0.969),
        ("just better", 0.971),
        ("clearly better", 0.99),
        ("clearly worse", 0.95),
    ):
        yield Row(
            "accuracy", truth, share >= 0.97, functools.partial(_flags, rate=share),
            lambda x: Proportion(int(x.sum()), len(x)), threshold(">=", 0.97, Dimension.PROPORTION), n, None,
            fixed=True,
        )  # fmt: skip


def _pairs(random: np.random.Generator, gates: int, n: int, lost: float, gained: float) -> np.ndarray:
    drawn = random.random((gates, n))
    return np.where(drawn < lost, 1, 0) - np.where(drawn > 1 - gained, 1, 0)


def drop_rows(n: int = 2000) -> Iterator[Row]:
    for truth, drop in (
        ("just worse", 0.0105),
        ("just better", 0.0095),
        ("clearly better", 0.0),
        ("clearly worse", 0.03),
    ):
        yield Row(
            "paired drop", truth, drop <= 0.01, functools.partial(_pairs, lost=0.005 + drop, gained=0.005),
            lambda x: Paired(int((x > 0).sum()), int((x < 0).sum()), len(x)),
            threshold("<=", 0.01, Dimension.DIFFERENCE), n, None, fixed=True,
        )  # fmt: skip


def rows() -> Iterator[Row]:
    yield from accuracy_rows()
    yield from drop_rows()
    yield from latency_rows("log-normal", log_normal)
    yield from latency_rows("bimodal", bimodal)
    yield from latency_rows("autocorrelated", functools.partial(log_normal, correlation=0.5))
    yield from latency_rows("queue", queue, budget=10_000)
    yield from latency_rows("queue", queue, budget=5000, probability=0.9)
    yield from latency_rows("queue", queue, budget=5000, probability=0.5)
    yield from error_rows()
    yield from throughput_rows()
    yield from throughput_rows(correlation=0.4)
    yield from speedup_rows()
    yield from speedup_rows(correlation=0.4)
    yield from ratio_rows()
    yield from ratio_rows(spread=0.8)


# The rules


def outcome(row: Row, sample: Sample) -> Outcome:
    """Return the gate's verdict on a sample; of what is undecided nobody asks here what would decide it."""
    held = Measurement(sample), row.threshold, CONFIDENCE
    return decide(*held).outcome if is_decided(*held) else Outcome.UNDECIDED


def ours(row: Row, stream: np.ndarray) -> tuple[Outcome, int]:
    """Look as the load does; stop as soon as it is decided."""
    if row.fixed:
        return outcome(row, row.sample(stream)), len(stream)
    events = np.cumsum(row.slow(stream)) if row.slow else None
    for n in looks(len(stream)):
        if events is not None:  # were they independent, could it be decided?
            seen = int(events[n - 1])
            certain = seen <= most_events(n, row.share, CONFIDENCE) or seen >= fewest_events(n, row.share, CONFIDENCE)
            if not certain:
                continue
        found = outcome(row, row.sample(stream[:n]))
        if found is not Outcome.UNDECIDED:
            return found, n
    return Outcome.UNDECIDED, len(stream)


def mlperf(row: Row, stream: np.ndarray) -> tuple[Outcome, int]:
    """LoadGen's rule: valid as soon as so few are over the limit of so many; it never says that a model is bad."""
    events = np.cumsum(row.slow(stream)) if row.slow else np.zeros(len(stream))
    for n in looks(len(stream)):
        if special.bdtr(int(events[n - 1]), n, row.share) <= 1 - MLPERF:
            return Outcome.PASS, n
    return Outcome.FAIL, len(stream)


@functools.cache
def fixed_size(share: float) -> int:
    """Return the planned size of a fixed-sample test of a share."""
    n = math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - share))
    while True:
        most = int(special.bdtrik(1 - CONFIDENCE, n, share))
        most -= special.bdtr(most, n, share) > 1 - CONFIDENCE
        fewest = int(special.bdtrik(CONFIDENCE, n, share)) + 2
        if special.bdtr(most, n, share / 2) >= POWER and special.bdtrc(fewest - 1, n, 2 * share) >= POWER:
            return n
        n = math.ceil(n * 1.02)


def fixed(row: Row, stream: np.ndarray) -> tuple[Outcome, int]:
    """A test of equal confidence whose size was planned beforehand, and that knows how dependent the stream is."""
    if row.slow:
        n = min(math.ceil(fixed_size(row.share) * row.time), len(stream))
        slow, total = int(row.slow(stream[:n]).sum()) / row.time, n / row.time
        if special.betaincc(slow + 1, total - slow, row.share) <= 1 - CONFIDENCE:
            return Outcome.PASS, n
        too_many = slow > 0 and special.betainc(slow, total - slow + 1, row.share) <= 1 - CONFIDENCE
        return (Outcome.FAIL if too_many else Outcome.UNDECIDED), n
    z, power = special.ndtri(CONFIDENCE), special.ndtri(POWER)
    n = min(math.ceil((4 * (z + power)) ** 2 * row.time), len(stream))
    part = stream[:n]
    reach = special.stdtrit(n / row.time - 1, CONFIDENCE) * part.std(ddof=1) / math.sqrt(n / row.time)
    limit = math.log(row.threshold.value) if row.threshold.dimension is Dimension.MULTIPLE else row.threshold.value
    if part.mean() - reach >= limit:
        return Outcome.PASS, n
    return (Outcome.FAIL if part.mean() + reach < limit else Outcome.UNDECIDED), n


def run_chunk(task: tuple[int, int, int]) -> list[list[tuple[str, int]]]:
    """Run some gates of a row under every rule."""
    index, seed, gates = task
    row = _ROWS[index]
    streams = row.draw(np.random.default_rng([index, seed]), gates, row.budget)
    rules = [ours] if row.fixed or row.alone else [ours, fixed, mlperf] if row.slow else [ours, fixed]
    return [[(outcome.value, n) for outcome, n in (rule(row, stream) for stream in streams)] for rule in rules]


def tally(results: list[tuple[str, int]]) -> Tally:
    words = [outcome for outcome, _ in results]
    return Tally(
        words.count("pass") / len(words), words.count("fail") / len(words), float(np.median([n for _, n in results]))
    )


_ROWS: list[Row] = []


def _prepare(only: str) -> None:
    _ROWS[:] = [row for row in rows() if only in row.name]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gates", type=int, default=2000, help="simulated gates a row")
    parser.add_argument("--row", default="", help="only rows whose name holds this")
    options = parser.parse_args()
    _prepare(options.row)
    print(f"{options.gates} gates a row, confidence {CONFIDENCE:.0%}. Wrong: a bad model passed, a good one failed.\n")
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + " --- |" * len(COLUMNS))
    chunks = math.ceil(options.gates / CHUNK)
    worst = 0.0
    with multiprocessing.get_context("spawn").Pool(os.cpu_count(), _prepare, (options.row,)) as pool:
        for index, row in enumerate(_ROWS):
            sizes = [min(CHUNK, options.gates - CHUNK * part) for part in range(chunks)]
            parts = pool.map(run_chunk, [(index, seed, size) for seed, size in enumerate(sizes)])
            rules = [tally([result for part in parts for result in part[rule]]) for rule in range(len(parts[0]))]
            wrong = [rule.failed if row.good else rule.passed for rule in rules]
            own = rules[0]
            worst = max(worst, wrong[0])
            best = row.best * row.time if row.best else None
            cells = [
                row.name,
                row.truth,
                "" if row.good else f"{wrong[0]:.1%}",
                f"{wrong[0]:.1%}" if row.good else "",
                f"{max(0.0, 1 - own.passed - own.failed):.1%}",
                f"{own.samples:,.0f}",
            ]
            cells.append(f"{own.samples / best:.2f} x {best:,.0f}" if best else "all" if row.fixed else "")
            for rule, error in zip(rules[1:], wrong[1:], strict=True):
                undecided = [f"{max(0.0, 1 - rule.passed - rule.failed):.1%}"] if rule is rules[1] else []
                cells += [f"{error:.1%}", *undecided, f"{rule.samples:,.0f}"]
            cells += [""] * (len(COLUMNS) - len(cells))
            print("| " + " | ".join(cells) + " |", flush=True)
    print(f"\nmost often wrong: {worst:.1%} of a row")


if __name__ == "__main__":
    main()
