"""A metric of the user's own, by import path: its kind says what its function returns, and so how it is decided."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from deploycheck.checks.metric import MetricFunction
from deploycheck.errors import DeploycheckError
from deploycheck.language.spec import ANSWERS, OwnMetric
from deploycheck.verdict import Measurement, Proportion, Resampled

if TYPE_CHECKING:
    import numpy as np

NO_NUMBER = "it is no number"


def own_metric(name: str, section: OwnMetric, function: Any, where: str) -> MetricFunction:
    """Return the metric that a spec defines under a name; ``where`` is the check that asks for it.

    Measuring raises ``DeploycheckError`` where the function raises, or returns something else than its kind says.
    """
    if not callable(function):
        what = f"{section.use} is {type(function).__name__}, expected a function of labels and outputs"
        raise DeploycheckError(what, where=where)

    def measure(labels: np.ndarray, outputs: np.ndarray) -> Measurement:
        import numpy as np

        def call(rows: np.ndarray) -> Any:
            try:
                return function(labels=labels[rows], outputs=outputs[rows], **section.arguments)
            except Exception as error:
                at = traceback.extract_tb(error.__traceback__)[-1]
                what = f"{section.use} raised {type(error).__name__}: {error}"
                raise DeploycheckError(what, where=f"{at.filename}:{at.lineno}") from error

        n = len(labels)
        if section.kind == "statistic":
            value = call(np.arange(n))
            if np.shape(value) or not np.issubdtype(np.asarray(value).dtype, np.number):
                raise _unexpected(section, "one number", value, where)
            bad = "" if np.isfinite(value) else NO_NUMBER
            return Measurement(Resampled(lambda rows: float(call(rows)), n), invalid=bad)
        values = np.asarray(call(np.arange(n)))
        if section.kind == "proportion":
            if values.shape != (n,) or values.dtype != np.bool_:
                raise _unexpected(section, f"bool of shape [{n}], one an example", values, where)
            return Measurement(Proportion.of(values))
        if values.shape != (n,) or not np.issubdtype(values.dtype, np.number):
            raise _unexpected(section, f"numbers of shape [{n}], one an example", values, where)
        bad = "" if np.isfinite(values).all() else f"{int((~np.isfinite(values)).sum())} of its values are no numbers"
        return Measurement(Resampled(lambda rows: float(values[rows].mean()), n), invalid=bad)

    return MetricFunction(section.word(name), ANSWERS, measure)


def _unexpected(section: OwnMetric, expected: str, value: Any, where: str) -> DeploycheckError:
    import numpy as np

    array = np.asarray(value)
    found = f"{array.dtype} of shape {list(array.shape)}"
    hint = "change what it returns, or its `kind`"
    return DeploycheckError(f"{section.use} returned {found}; a {section.kind} is {expected}", where=where, hint=hint)
