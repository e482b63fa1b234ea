"""A measurement relative to another model's: ``of baseline``, ``x trained``, ``% rel``."""

from __future__ import annotations

import math
from dataclasses import replace

from deploycheck.errors import DeploycheckError
from deploycheck.language.threshold import RELATIVE, Threshold
from deploycheck.verdict import ANY_VALUE, Measurement, Paired, RelativeDrop, Sample, WorstOf, ratio_of, value_of


def relative(first: Measurement, second: Measurement, against: str) -> Measurement:
    """Return the ratio of two measurements of one metric; ``against`` names the model of the second.

    A ratio to zero or to a negative value is undefined: such a measurement is invalid. What makes single latencies
    doubtful (a client behind its schedule) is the same for both, so that their ratio isn't doubtful.
    """
    parts = second.sample.slices.values() if isinstance(second.sample, WorstOf) else (second.sample,)
    value = min((found for part in parts if not math.isnan(found := value_of(part))), default=math.nan)
    bad = ""
    if value <= 0:
        bad = f"{against} has {value:.4g}: a ratio to zero or to a negative value is undefined"
    invalid = next(filter(None, (first.invalid, second.invalid, bad)), "")
    return replace(
        first,
        sample=ratio_of(first.sample, second.sample),
        doubt="",
        invalid=invalid,
        unfit=first.unfit or second.unfit,
        reach=ANY_VALUE,
    )


def in_unit(measurement: Measurement, threshold: Threshold | None, metric: str) -> Measurement:
    """Return a drop as a share of the value it drops from, where the threshold's unit says so.

    Raises ``DeploycheckError`` for a metric that is no drop.
    """
    if threshold is None or threshold.unit != RELATIVE:
        return measurement
    sample = measurement.sample
    if isinstance(sample, WorstOf):
        parts = {name: _relative_drop(part, metric) for name, part in sample.slices.items()}
        return replace(measurement, sample=replace(sample, slices=parts))
    return replace(measurement, sample=_relative_drop(sample, metric), reach=ANY_VALUE)


def _relative_drop(sample: Sample, metric: str) -> RelativeDrop:
    if not isinstance(sample, Paired):
        raise DeploycheckError(f"{metric} can't be given in {RELATIVE}", hint="use pp")
    return RelativeDrop(sample)
