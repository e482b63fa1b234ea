"""``order_invariant``: asked in another order, the same examples get the same outputs."""

from __future__ import annotations

from deploycheck.properties.domain import Batch, several_rows
from deploycheck.properties.outputs import difference
from deploycheck.properties.property import Predictor, Property
from deploycheck.properties.settings import ToleranceSettings


def _check(predictor: Predictor, batch: Batch, settings: ToleranceSettings) -> str:
    """Ask a batch, then the same in reverse."""
    inputs = batch.inputs
    first = predictor.predict(inputs)
    reversed_ = predictor.predict({name: array[::-1] for name, array in inputs.items()})
    return difference({name: array[::-1] for name, array in reversed_.items()}, first, settings.tolerance, "in order")


ORDER_INVARIANT = Property(name="order_invariant", check=_check, settings=ToleranceSettings, cases=several_rows)
