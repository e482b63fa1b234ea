"""Measurement and threshold to verdict: pure arithmetic, no JAX.

``decide`` is the whole of it. What a metric observed is one of the sample types below; ``bounds`` turns a
sample into one-sided confidence bounds, and a threshold holds, fails or stays undecided by where they lie.
"""

from deploycheck.verdict.bounds import bounds, examples_to_decide
from deploycheck.verdict.decide import Outcome, Verdict, decide, settle
from deploycheck.verdict.samples import (
    Blocks,
    Exact,
    Measurement,
    Paired,
    Proportion,
    Quantile,
    Sample,
    WorstOf,
    sample_size,
    value_of,
)

__all__ = [
    "Blocks",
    "Exact",
    "Measurement",
    "Outcome",
    "Paired",
    "Proportion",
    "Quantile",
    "Sample",
    "Verdict",
    "WorstOf",
    "bounds",
    "decide",
    "examples_to_decide",
    "sample_size",
    "settle",
    "value_of",
]
