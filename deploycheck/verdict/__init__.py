"""From a measurement and a threshold to a verdict: pure arithmetic, no JAX.

``decide`` is the entry point. What a metric observed is one of the sample types below. ``bounds`` turns a sample into
one-sided confidence bounds: a check passes or fails where every value between them does, and is undecided where the
threshold is between them.
"""

from deploycheck.verdict.bounds import FEWEST_REPEATS, bounds
from deploycheck.verdict.decide import Outcome, Verdict, decide, is_decided, settle
from deploycheck.verdict.sample_size import (
    examples_to_decide,
    fewest_for_rate,
    fewest_requests,
    fewest_rounds,
    may_be_settled,
    named,
)
from deploycheck.verdict.samples import (
    ANY_VALUE,
    Blocks,
    Events,
    Exact,
    Measurement,
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
    paired,
    ratio_of,
    sample_size,
    undisturbed,
    value_of,
)
from deploycheck.verdict.sequential import looks

__all__ = [
    "ANY_VALUE",
    "FEWEST_REPEATS",
    "Blocks",
    "Events",
    "Exact",
    "Measurement",
    "Outcome",
    "Paired",
    "Proportion",
    "Quantile",
    "Quotient",
    "Ratios",
    "RelativeDrop",
    "Repeats",
    "Resampled",
    "Retained",
    "Sample",
    "Verdict",
    "WorstOf",
    "bounds",
    "decide",
    "examples_to_decide",
    "fewest_for_rate",
    "fewest_requests",
    "fewest_rounds",
    "is_decided",
    "looks",
    "may_be_settled",
    "named",
    "paired",
    "ratio_of",
    "sample_size",
    "settle",
    "undisturbed",
    "value_of",
]
