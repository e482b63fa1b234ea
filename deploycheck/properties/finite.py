"""``finite``: no output is NaN or infinite."""

from __future__ import annotations

from deploycheck.lazy import np
from deploycheck.properties.domain import Batch
from deploycheck.properties.property import Predictor, Property
from deploycheck.properties.settings import PropertySettings


def _check(predictor: Predictor, batch: Batch, settings: PropertySettings) -> str:
    del settings
    for name, array in predictor.predict(batch.inputs).items():
        wrong = [] if array.dtype.kind != "f" else np.argwhere(~np.isfinite(array)).tolist()
        if wrong:
            return f"{name}{wrong[0]} is {array[tuple(wrong[0])]}"
    return ""


FINITE = Property(name="finite", check=_check)
