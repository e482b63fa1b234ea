"""A metric that a spec defines by import path: its ``kind`` says what its function returns, and how it is decided."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from deploycheck.checks.metric import MetricFunction
from deploycheck.errors import DeploycheckError
from deploycheck.language.spec import ANSWERS, OwnMetric
from deploycheck.lazy import np
from deploycheck.verdict import Measurement, Proportion, Resampled

SAMPLES: dict[str, type[Proportion | Resampled]] = {
    "proportion": Proportion,
    "mean": Resampled,
    "statistic": Resampled,
}
"""The sample of each kind of metric."""


def own_metric(name: str, section: OwnMetric, function: Any) -> MetricFunction:
    """Return the metric that a spec defines under a name.

    Raises ``DeploycheckError`` where ``function`` is not callable. So does measuring, where the function raises or
    returns something else than its kind says.
    """
    if not callable(function):
        raise DeploycheckError(f"{section.use} is {type(function).__name__}, expected a function of labels and outputs")

    def measure(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
        return _measure(section, lambda rows: _call(section, function, labels[rows], outputs[rows]), len(labels))

    return MetricFunction(section.word(name), ANSWERS, SAMPLES[section.kind], measure)


def _call(section: OwnMetric, function: Callable[..., Any], labels: np.ndarray, outputs: np.ndarray) -> Any:
    try:
        return function(labels=labels, outputs=outputs, **section.arguments)
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{section.use} raised {type(error).__name__}: {error}"
        raise DeploycheckError(what, where=f"{at.filename}:{at.lineno}") from error


def _measure(section: OwnMetric, call: Callable[[np.ndarray], Any], n: int) -> Measurement:
    """Return the measurement on ``n`` examples; ``call(rows)`` is what the function returns for some of them."""
    values = np.asarray(call(np.arange(n)))
    if section.kind == "proportion":
        if values.shape != (n,) or values.dtype != np.bool_:
            raise _unexpected(section, f"bool of shape [{n}], one per example", values)
        return Measurement(Proportion.of(values))
    if section.kind == "statistic":
        if values.shape or not np.issubdtype(values.dtype, np.number):
            raise _unexpected(section, "one number", values)
        invalid = "" if np.isfinite(values) else "it is not a finite number"
        return Measurement(Resampled(lambda rows: float(call(rows)), n), invalid=invalid)
    if values.shape != (n,) or not np.issubdtype(values.dtype, np.number):
        raise _unexpected(section, f"numbers of shape [{n}], one per example", values)
    bad = int((~np.isfinite(values)).sum())
    invalid = f"{bad} of its values are not finite numbers" if bad else ""
    return Measurement(Resampled(lambda rows: float(values[rows].mean()), n), invalid=invalid)


def _unexpected(section: OwnMetric, expected: str, values: np.ndarray) -> DeploycheckError:
    found = f"{values.dtype} of shape {list(values.shape)}"
    hint = "change what it returns, or its `kind`"
    return DeploycheckError(f"{section.use} returned {found}; a {section.kind} is {expected}", hint=hint)
