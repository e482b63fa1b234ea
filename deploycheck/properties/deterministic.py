"""``deterministic``: the same request gets the same outputs, to the last bit."""

from __future__ import annotations

from deploycheck.properties.domain import Batch
from deploycheck.properties.outputs import difference
from deploycheck.properties.property import Predictor, Property
from deploycheck.properties.settings import PropertySettings


def _check(predictor: Predictor, batch: Batch, settings: PropertySettings) -> str:
    """Ask the same batch twice."""
    del settings
    inputs = batch.inputs
    first = predictor.predict(inputs)
    return difference(predictor.predict(inputs), first, 0.0, "the first time")


DETERMINISTIC = Property(name="deterministic", check=_check)
