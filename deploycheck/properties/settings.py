"""Settings: those that every property takes, and those that several share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Self

from pydantic import Field, StrictInt

from deploycheck.language.fields import Name, Number, Section, Seed

NotNegative = Annotated[Number, Field(ge=0, le=1e9)]
Index = Annotated[StrictInt, Field(ge=0, le=2**31 - 1)]
Examples = Annotated[StrictInt, Field(ge=1, le=100_000)]


class PropertySettings(Section):
    """What every property takes: how many inputs are tried, the seed that they are drawn with, and a ``label``.

    The label is added to the check's name, so that a spec can have one property twice.
    """

    examples: Examples = 100
    seed: Seed = 0
    label: Name | None = None

    def with_code(self, load_object: Callable[[str], Any]) -> Self:
        """Return the settings with the objects that they name by import path; by default they name none."""
        del load_object
        return self


class ToleranceSettings(PropertySettings):
    """How far two values may differ: by ``tolerance``, plus this share of the expected value."""

    tolerance: NotNegative = 1e-4


class ChangeSettings(PropertySettings):
    """How far outputs may change; without a ``tolerance`` the decision, the class with the highest output, may not."""

    tolerance: NotNegative | None = None
