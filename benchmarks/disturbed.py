"""How often verdicts are wrong on a busy machine, by simulated gates whose true value on a quiet machine is known.

    python benchmarks/disturbed.py [--gates 400]

A disturbance comes and goes; while it lasts, it takes a share of the machine, and makes each request slower by an
exponential time in proportion to that share. The watch on the machine sees the share in each interval with an error,
and marks the interval if what it sees is over its limit: weak disturbances are missed. "Random marks" also misses
some of the strong ones, and marks some quiet intervals. The columns give the shares of wrong verdicts: a model just
worse than its limit that passed, a model just better that failed, both with the rule of the gate (all requests can
pass, the undisturbed can fail), and with a rule that leaves disturbed requests out.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deploycheck.language import Dimension, Threshold
from deploycheck.serving.machine_state import MOST_TAKEN
from deploycheck.serving.throughput import widened
from deploycheck.verdict import Blocks, Measurement, Quantile, Sample, decide, is_decided, looks, may_be_settled
from deploycheck.verdict import undisturbed as without

CONFIDENCE = 0.95
REQUESTS, BLOCKS = 2000, 200
PER_INTERVAL = 40
"""Requests in an interval of the watch: 0.2 s at 200 requests per second. A block of throughput is an interval."""
SIGHT = 0.03
"""The standard error of the share of the machine that the watch sees."""


@dataclass(frozen=True)
class Noise:
    """Disturbances: the share of time with one, and the shares of marks set and removed at random."""

    name: str
    busy: float
    missed: float = 0.0
    false: float = 0.0


NOISES = (
    Noise("quiet", 0.0),
    Noise("quiet, one interval in ten marked", 0.0, false=0.1),
    Noise("disturbed half of the time", 0.5),
    Noise("disturbed half of the time, random marks", 0.5, missed=0.02, false=0.1),
    Noise("always disturbed", 1.0),
)


def shares(random: np.random.Generator, noise: Noise, intervals: int) -> np.ndarray:
    """Draw the share of the machine that is taken in each interval; a state lasts for ten intervals on average."""
    taken = np.zeros(intervals)
    at = 0
    while at < intervals:
        lasts = random.geometric(0.1)
        taken[at : at + lasts] = random.uniform(0, 0.5) if random.random() < noise.busy else 0.0
        at += lasts
    return taken


def marks(random: np.random.Generator, noise: Noise, taken: np.ndarray) -> np.ndarray:
    """Return which intervals the watch marks."""
    seen = taken + SIGHT * random.standard_normal(len(taken)) > MOST_TAKEN
    lost, added = random.random((2, len(taken)))
    return np.array(widened(((seen & (lost >= noise.missed)) | (added < noise.false)).tolist()))


def latencies(random: np.random.Generator, noise: Noise) -> tuple[np.ndarray, np.ndarray]:
    """Draw latencies, log-normal with a median of 5 ms on a quiet machine, and their marks."""
    taken = shares(random, noise, REQUESTS // PER_INTERVAL)
    marked = np.repeat(marks(random, noise, taken), PER_INTERVAL)
    quiet = 0.005 * np.exp(0.5 * random.standard_normal(REQUESTS))
    return quiet + random.exponential(0.02, REQUESTS) * np.repeat(taken, PER_INTERVAL), marked


def rates(random: np.random.Generator, noise: Noise) -> tuple[np.ndarray, np.ndarray]:
    """Draw rates, 500 on average with a deviation of 50 on a quiet machine, and their marks."""
    taken = shares(random, noise, BLOCKS)
    return (500 + 50 * random.standard_normal(BLOCKS)) * (1 - taken), marks(random, noise, taken)


Make = Callable[[tuple[float, ...], tuple[bool, ...]], Sample]


def p99(values: tuple[float, ...], marked: tuple[bool, ...]) -> Sample:
    return Quantile(0.99, values, disturbed=marked)


def outcome(values: np.ndarray, marked: np.ndarray, make: Make, threshold: Threshold, *, leave_out: bool) -> str:
    """Look as often as a load test does; stop as soon as the check is decided."""
    for n in looks(len(values)):
        sample = make(tuple(values[:n].tolist()), tuple(marked[:n].tolist()))
        measurement = Measurement(without(sample) if leave_out else sample)
        if may_be_settled(measurement.sample, threshold, CONFIDENCE) and is_decided(measurement, threshold, CONFIDENCE):
            return decide(measurement, threshold, CONFIDENCE).outcome.value
    return "undecided"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gates", type=int, default=400, help="simulated gates per row")
    gates: int = parser.parse_args().gates
    long_run = 0.005 * np.exp(0.5 * np.random.default_rng(1).standard_normal(4_000_000))
    print("| | machine | true value | pass | fail | undecided | left out: pass | fail |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, draw, make, comparator, truths in (
        (
            "p99",
            latencies,
            p99,
            "<=",
            {
                word: float(np.quantile(long_run, 1 - share))
                for word, share in (
                    ("just worse", 0.0105),
                    ("just better", 0.0095),
                    ("clearly worse", 0.05),
                    ("clearly better", 1e-5),
                )
            },
        ),
        (
            "throughput",
            rates,
            Blocks,
            ">=",
            {"just worse": 505.0, "just better": 495.0, "clearly worse": 550.0, "clearly better": 250.0},
        ),
    ):
        for noise in NOISES:
            streams = [draw(np.random.default_rng(seed), noise) for seed in range(gates)]
            for truth, limit in truths.items():
                threshold = Threshold(comparator, limit, "", Dimension.NUMBER)
                cells = []
                for leave_out in (False, True):
                    seen = Counter(outcome(*stream, make, threshold, leave_out=leave_out) for stream in streams)
                    words = ("pass", "fail") if leave_out else ("pass", "fail", "undecided")
                    cells += [f"{seen[word] / gates:.1%}" for word in words]
                print("| " + " | ".join([name, noise.name, truth, *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
