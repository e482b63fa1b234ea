"""``stable_under``: noise of a size doesn't change the decision, or the outputs by more than a tolerance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from deploycheck.language.fields import Number
from deploycheck.lazy import np
from deploycheck.properties.domain import Batch, Domain, Row, cast_like, example_rows
from deploycheck.properties.outputs import changed
from deploycheck.properties.property import Predictor, Property
from deploycheck.properties.settings import ChangeSettings

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


class StableSettings(ChangeSettings):
    """``noise``: the largest change of a feature, as a share of its range in the data."""

    noise: Annotated[Number, Field(gt=0)]


@dataclass(frozen=True)
class Noisy:
    """A test example, and the same with noise: uniform, up to a share of each feature's range in either direction."""

    row: Row
    seed: int
    noise: float
    domain: Domain = field(repr=False, compare=False)

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """The example with noise, ``[1, ...]`` each."""
        random = np.random.default_rng(self.seed)
        found = {}
        for name, array in Batch((self.row,), self.domain).inputs.items():
            each = self.domain.inputs[name]
            size = self.noise * (each.high.astype(np.float64) - each.low.astype(np.float64))
            found[name] = array
            if array.dtype.kind != "b":
                found[name] = cast_like(array + size * random.uniform(-1, 1, array.shape), array)
        return found

    def __str__(self) -> str:
        return f"{self.row.describe(self.domain)}, with noise of {self.noise:g} of the range (seed {self.seed})"


def _cases(domain: Domain, settings: StableSettings) -> SearchStrategy[Noisy]:
    from hypothesis import strategies as st

    noise, of = st.just(settings.noise), st.just(domain)
    return st.builds(Noisy, example_rows(domain), st.integers(0, 2**16), noise, of)


def _check(predictor: Predictor, case: Noisy, settings: StableSettings) -> str:
    before = predictor.predict(Batch((case.row,), case.domain).inputs)
    return changed(predictor.predict(case.inputs), before, settings.tolerance)


STABLE_UNDER = Property(name="stable_under", check=_check, settings=StableSettings, cases=_cases)
