"""Which weights get more bits: those whose rounding changes the model's outputs most, for the bytes that it saves.

Each weight is rounded alone, the others are as they were, and the outputs on the validation examples are compared with
those of the model without rounding. All of this is one compiled program, because a rounded weight is an array of the
same shape. What several roundings do together isn't measured here: a search measures the recipes that follow from it.
"""

from __future__ import annotations

import glob
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploycheck.stages.examples import Examples
from deploycheck.stages.methods.quantize import BITS, QuantizeOptions
from deploycheck.stages.model import Model, flatten, predictor
from deploycheck.stages.quantization.arithmetic import QuantizedWeight
from deploycheck.stages.quantization.scales import quantized, type_of
from deploycheck.stages.quantization.uses import Use
from deploycheck.stages.quantized_share import SCALE, VALUE

BATCH = 64
"""How many examples the model computes at a time."""
HIGHER: Mapping[str, str | None] = {"int4": "int8", "int8": None, "fp8": None}
"""The type that a weight of each type gets next; None is its own, float."""


@dataclass(frozen=True)
class _Step:
    """A weight gets more bits: how many bytes that takes, and by how much the outputs' error falls."""

    name: str
    type: str | None
    bytes: float
    gain: float

    @property
    def worth(self) -> float:
        """How much less wrong the outputs are for each byte; a step may take none, because scales take some."""
        return self.gain / self.bytes if self.bytes > 0 else math.inf


def finer_options(
    source: Model, options: QuantizeOptions, uses: Mapping[str, Use], examples: Examples
) -> list[QuantizeOptions]:
    """Return options with which more and more of the weights get more bits, down to the share that must be quantised.

    ``uses`` are those of the weights that ``options`` quantise. Each of the options returned is the one before it with
    more bits for one weight: that whose error falls most for the bytes that it takes.
    """
    params = flatten(source.params)[0]
    total = sum(array.nbytes for array in params.values())
    types: dict[str, str | None] = {name: type_of(name, options) for name in uses}
    left = sum(params[name].nbytes for name in types)
    found = []
    for step in sorted(_steps(source, options, uses, examples), key=lambda step: -step.worth):
        before = types[step.name]
        if before is None or (step.type and BITS[step.type] <= BITS[before]):
            continue  # an earlier step gave it more bits than this one
        remaining = left if step.type else left - params[step.name].nbytes
        if remaining and remaining >= options.at_least * total:
            left = remaining
            types[step.name] = step.type
            found.append(_written(options, types))
    return found


def _steps(source: Model, options: QuantizeOptions, uses: Mapping[str, Use], examples: Examples) -> Iterator[_Step]:
    """Yield each step up that a weight may take."""
    params, error = flatten(source.params)[0], _error_of(source, examples)
    for name, use in uses.items():
        at = type_of(name, options)
        before, taken = _rounded(name, params[name], use, options, at)
        wrong = error(name, before)
        while at is not None:
            at = HIGHER[at]
            after, takes = _rounded(name, params[name], use, options, at)
            less_wrong = error(name, after) if at else 0.0
            yield _Step(name, at, takes - taken, wrong - less_wrong)
            wrong, taken = less_wrong, takes


def _rounded(name: str, weight: Any, use: Use, options: QuantizeOptions, to: str | None) -> tuple[Any, float]:
    """Return a weight as it is after it was quantised to a type, and the bytes that it is stored in then."""
    if to is None:
        return weight, weight.nbytes
    arrays = quantized(name, weight, use, options.model_copy(update={"weights": to}))
    codes, scales = arrays[name + VALUE], arrays[name + SCALE]
    return QuantizedWeight.of(codes, scales).dequantized, codes.size * BITS[to] / 8 + scales.nbytes


def _error_of(source: Model, examples: Examples) -> Callable[[str, Any], float]:
    """Return a function of a weight and what takes its place: the mean squared change of the outputs."""
    params, restore = flatten(source.params)
    run = predictor(lambda weights, inputs: source.apply(restore(weights), source.state, inputs), BATCH)
    exact = run(params, examples.inputs)

    def error(name: str, rounded: Any) -> float:
        outputs = run({**params, name: rounded}, examples.inputs)
        change = sum(float(np.mean(np.square(outputs[key] - exact[key]))) for key in exact)
        return change if math.isfinite(change) else sys.float_info.max

    return error


def _written(options: QuantizeOptions, types: Mapping[str, str | None]) -> QuantizeOptions:
    """Return options that give weights these types, as they would be written by hand."""
    raised: dict[str | None, tuple[str, ...]] = {}
    for name, to in types.items():
        if to != type_of(name, options):
            raised[to] = (*raised.get(to, ()), glob.escape(name))
    keep = (*options.keep, *raised.pop(None, ()))
    changed: dict[str, Any] = {"keep": keep}
    if raised:
        table: dict[str, list[str]] = {to: [*patterns] for to, patterns in options.types.items()}
        for to, names in raised.items():
            table[str(to)] = [*table.get(str(to), ()), *names]
        changed["weights"] = table
    plain = options.model_dump(mode="json", by_alias=True, exclude_none=True)
    return QuantizeOptions.model_validate({**plain, **changed})
