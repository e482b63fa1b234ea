"""``order_invariant``: asked in another order, the same examples get the same outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploycheck.properties.domain import Batch, Domain, batches_of
from deploycheck.properties.outputs import difference
from deploycheck.properties.property import Predictor, Property
from deploycheck.properties.settings import ToleranceSettings

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def _cases(domain: Domain, settings: ToleranceSettings) -> SearchStrategy[Batch]:
    del settings
    return batches_of(domain, min(2, domain.largest), domain.largest)


def _check(predictor: Predictor, batch: Batch, settings: ToleranceSettings) -> str:
    """Ask a batch, then the same in reverse."""
    inputs = batch.inputs
    first = predictor.predict(inputs)
    reversed_ = predictor.predict({name: array[::-1] for name, array in inputs.items()})
    return difference({name: array[::-1] for name, array in reversed_.items()}, first, settings.tolerance, "in order")


ORDER_INVARIANT = Property(name="order_invariant", check=_check, settings=ToleranceSettings, cases=_cases)
