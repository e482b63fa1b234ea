"""``batch_invariant``: an example's outputs don't depend on the examples that are asked with it."""

from __future__ import annotations

from deploycheck.properties.domain import Batch, several_rows
from deploycheck.properties.outputs import difference
from deploycheck.properties.property import Predictor, Property
from deploycheck.properties.settings import ToleranceSettings


def _check(predictor: Predictor, batch: Batch, settings: ToleranceSettings) -> str:
    """Ask a batch, then each of its rows alone."""
    inputs = batch.inputs
    together = predictor.predict(inputs)
    for row in range(len(batch.rows)):
        alone = predictor.predict({name: array[row : row + 1] for name, array in inputs.items()})
        in_batch = {name: array[row : row + 1] for name, array in together.items()}
        differs = difference(in_batch, alone, settings.tolerance, "alone")
        if differs:
            return f"row {row} of the batch: {differs}"
    return ""


BATCH_INVARIANT = Property(name="batch_invariant", check=_check, settings=ToleranceSettings, cases=several_rows)
