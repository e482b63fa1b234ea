"""``bounded``: every value of an output is between two bounds."""

from __future__ import annotations

from typing import Self

from pydantic import StrictStr, model_validator

from deploycheck.language.fields import Number, mistake
from deploycheck.lazy import np
from deploycheck.properties.domain import Batch
from deploycheck.properties.outputs import only_output
from deploycheck.properties.property import Predictor, Property
from deploycheck.properties.settings import PropertySettings


class BoundedSettings(PropertySettings):
    """The lowest and the highest value that ``output`` may have; the first output if none is named."""

    low: Number | None = None
    high: Number | None = None
    output: StrictStr | None = None

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.low is None and self.high is None:
            raise mistake("`bounded` has neither `low` nor `high`", "add `low: NUMBER` or `high: NUMBER`", key=True)
        if self.low is not None and self.high is not None and self.low > self.high:
            raise mistake(f"`low` is {self.low:g}, above `high`, {self.high:g}", key=True)
        return self


def _check(predictor: Predictor, batch: Batch, settings: BoundedSettings) -> str:
    array = only_output(predictor.predict(batch.inputs), settings.output)
    low = -np.inf if settings.low is None else settings.low
    high = np.inf if settings.high is None else settings.high
    wrong = np.argwhere(~((array >= low) & (array <= high)))
    if not len(wrong):
        return ""
    at = [int(part) for part in wrong[0]]
    return f"the output{at} is {array[tuple(at)]:.6g}, expected {low:g} to {high:g}"


BOUNDED = Property(name="bounded", check=_check, settings=BoundedSettings)
