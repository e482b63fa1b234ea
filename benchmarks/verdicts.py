"""How often the verdicts are wrong, and how many samples they take, by simulated gates.

    python benchmarks/verdicts.py [--gates 2000] [--row latency]

Each row is a model whose true value is known: just on the wrong side of its threshold, just on the right side, and
far from it on either side. The gate's own verdict is compared, on the same streams, with

- a fixed-sample test of equal confidence, whose size is planned to distinguish a model at half or twice the allowed
  share (for means: a quarter of a block's standard deviation from the limit) from the limit nine times in ten. On a
  dependent stream it knows the true autocorrelation time, without which its confidence would not be equal. It takes
  the budget where that is smaller than its planned size,
- MLPerf LoadGen's early-stopping rule (99 %, none of it for failing), applied at every look; it treats every stream
  as independent,
- Wald's sequential probability ratio test that knows the truth: the expected samples of the best possible test, for
  dependent streams times their true autocorrelation time (the longer of the stream's own and that of a stream just at
  the limit). Just beside the threshold that is far more than any budget.
"""

from __future__ import annotations

import argparse
import functools
import math
import multiprocessing
import os
from dataclasses import dataclass

import numpy as np
from scipy import special
from verdict_rows import CONFIDENCE, Row, rows

from deploycheck.language import Dimension
from deploycheck.verdict import (
    Measurement,
    Outcome,
    Sample,
    decide,
    is_decided,
    looks,
)
from deploycheck.verdict.sequential import fewest_events, most_events

MLPERF = 0.99
POWER = 0.9
CHUNK = 250
BUDGETS = (1000, 2000, 5000, 10_000, 20_000)
COLUMNS = (
    "",
    "true value",
    "false passes",
    "false blocks",
    "undecided",
    "median samples",
    "of Wald's",
    "fixed: wrong",
    "undecided",
    "samples",
    "LoadGen: wrong",
    "median samples",
)


@dataclass(frozen=True)
class Tally:
    """The results of a rule over all gates of a row: shares, and the median number of samples."""

    passed: float
    failed: float
    samples: float


# The rules


def outcome(row: Row, sample: Sample) -> Outcome:
    """Return the gate's verdict on a sample, without computing what would decide an undecided one."""
    check = Measurement(sample), row.threshold, CONFIDENCE
    return decide(*check).outcome if is_decided(*check) else Outcome.UNDECIDED


def ours(row: Row, stream: np.ndarray) -> tuple[Outcome, int]:
    """Look as often as a load test does; stop as soon as the check is decided."""
    if row.fixed:
        return outcome(row, row.sample(stream)), len(stream)
    events = np.cumsum(row.slow(stream)) if row.slow else None
    for n in looks(len(stream)):
        if n < row.least:
            continue
        if events is not None:  # skip the costly test where even independent observations wouldn't decide it
            seen = int(events[n - 1])
            certain = seen <= most_events(n, row.share, CONFIDENCE) or seen >= fewest_events(n, row.share, CONFIDENCE)
            if not certain:
                continue
        found = outcome(row, row.sample(stream[:n]))
        if found is not Outcome.UNDECIDED:
            return found, n
    return Outcome.UNDECIDED, len(stream)


def mlperf(row: Row, stream: np.ndarray) -> tuple[Outcome, int]:
    """Apply LoadGen's rule: valid as soon as few enough are over the limit; it never says that a model is bad."""
    events = np.cumsum(row.slow(stream)) if row.slow else np.zeros(len(stream))
    for n in looks(len(stream)):
        if n >= row.least and special.bdtr(int(events[n - 1]), n, row.share) <= 1 - MLPERF:
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
    """Apply a test of equal confidence whose size was planned, and that knows how dependent the stream is."""
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
    _ROWS[:] = rows(only)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gates", type=int, default=2000, help="simulated gates per row")
    parser.add_argument("--row", default="", help="only rows whose name contains this")
    options = parser.parse_args()
    _prepare(options.row)
    print(
        f"{options.gates} gates per row, confidence {CONFIDENCE:.0%}. Wrong: a bad model passed, a good one failed.\n"
    )
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + " --- |" * len(COLUMNS))
    chunks = math.ceil(options.gates / CHUNK)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the processes share the cores already
    worst, by_budget = 0.0, []
    with multiprocessing.get_context("spawn").Pool(os.cpu_count(), _prepare, (options.row,)) as pool:
        for index, row in enumerate(_ROWS):
            sizes = [min(CHUNK, options.gates - CHUNK * part) for part in range(chunks)]
            parts = pool.map(run_chunk, [(index, seed, size) for seed, size in enumerate(sizes)])
            rules = [tally([result for part in parts for result in part[rule]]) for rule in range(len(parts[0]))]
            if row.by_budget:
                passed = [n for part in parts for outcome, n in part[0] if outcome == "pass"]
                shares = [sum(n <= budget for n in passed) / options.gates for budget in BUDGETS]
                by_budget.append([row.name, *(f"{share:.1%}" for share in shares)])
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
    if by_budget:
        print("\nFalse passes of models just worse, by budget\n")
        print("| | " + " | ".join(f"{budget:,}" for budget in BUDGETS) + " |")
        print("|" + " --- |" * (len(BUDGETS) + 1))
        print("\n".join("| " + " | ".join(cells) + " |" for cells in by_budget))
    print(f"\nmost often wrong: {worst:.1%} of a row")


if __name__ == "__main__":
    main()
