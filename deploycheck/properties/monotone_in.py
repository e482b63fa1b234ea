"""``monotone_in``: if one feature rises and the others stay, the output never falls, or never rises."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field, StrictStr

from deploycheck.errors import DeploycheckError
from deploycheck.language.errors import Mistake, did_you_mean
from deploycheck.language.spec import Input
from deploycheck.lazy import np
from deploycheck.properties.domain import Batch, Change, Domain, Row, feature_name, rows
from deploycheck.properties.outputs import only_output
from deploycheck.properties.property import Predictor, Property
from deploycheck.properties.settings import Index, NotNegative, PropertySettings

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


class MonotoneSettings(PropertySettings):
    """The feature: its place in ``input`` (a number, or one per axis), none where the input is one number.

    Measured is the probability (softmax) of a class of ``output``, or without ``class`` the one number that a model
    gives per example.
    """

    input: StrictStr | None = None
    feature: Index | tuple[Index, ...] | None = None
    direction: Literal["increasing", "decreasing"] = "increasing"
    output: StrictStr | None = None
    class_: Index | None = Field(default=None, alias="class")
    tolerance: NotNegative = 1e-5


@dataclass(frozen=True)
class Step:
    """A row asked twice: with ``feature`` of ``input`` at two levels of its range, the first below the second."""

    row: Row
    input: str
    feature: int
    low: float
    high: float
    domain: Domain = field(repr=False, compare=False)

    @property
    def batch(self) -> Batch:
        """The two rows, that with the lower value first."""
        others = tuple(each for each in self.row.changes if (each.input, each.feature) != (self.input, self.feature))
        changed = [(*others, Change(self.input, self.feature, level)) for level in (self.low, self.high)]
        return Batch(tuple(replace(self.row, changes=changes) for changes in changed), self.domain)

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """The inputs of both rows."""
        return self.batch.inputs

    def __str__(self) -> str:
        values = self.inputs[self.input].reshape(2, -1)[:, self.feature]
        name = feature_name(self.input, self.feature, self.domain.inputs[self.input].low.shape)
        return f"{name} raised from {values[0]:.6g} to {values[1]:.6g}, in {self.row.describe(self.domain)}"


def _input_of(settings: MonotoneSettings, names: Iterable[str]) -> str | None:
    """Return the name of the input, or None where it isn't said which of several."""
    known = list(names)
    return settings.input or (known[0] if len(known) == 1 else None)


def _index(settings: MonotoneSettings, shape: tuple[int, ...]) -> int | None:
    """Return the feature's number in row-major order, or None where the input has no such feature."""
    given = settings.feature
    if given is None:
        return None if shape else 0
    place = given if isinstance(given, tuple) else (given,)
    if len(place) != len(shape) or any(at >= size for at, size in zip(place, shape, strict=True)):
        return None
    index = 0
    for at, size in zip(place, shape, strict=True):
        index = index * size + at
    return index


def _find_mistakes(settings: MonotoneSettings, inputs: Mapping[str, Input]) -> Iterable[Mistake]:
    name = _input_of(settings, inputs)
    if name is None:
        yield Mistake((), f"it doesn't say which of the inputs {', '.join(inputs)}", "add `input: NAME`", key=True)
    elif name not in inputs:
        yield Mistake(("input",), f"the model has no input {name!r}", did_you_mean(name, inputs))
    else:
        shape = inputs[name].shape
        if _index(settings, shape) is not None:
            return
        if settings.feature is None:
            yield Mistake((), f"it doesn't say which feature of {name}", "add `feature: NUMBER`", key=True)
        else:
            hint = f"give {len(shape)} number{'' if len(shape) == 1 else 's'}, each below the size of its axis"
            hint = hint if shape else "leave `feature` out: the input is one number"
            yield Mistake(("feature",), f"{name} of the shape {list(shape)} has no such feature", hint)


def _cases(domain: Domain, settings: MonotoneSettings) -> SearchStrategy[Step]:
    from hypothesis import strategies as st

    name = _input_of(settings, domain.inputs)
    feature = _index(settings, domain.inputs[name].low.shape) if name is not None and name in domain.inputs else None
    if name is None or feature is None:
        raise DeploycheckError(f"the input {name} has no feature {settings.feature}", hint="correct `feature`")
    each = domain.inputs[name]
    if each.low.flat[feature] == each.high.flat[feature]:
        where = feature_name(name, feature, each.low.shape)
        what = f"{where} has the same value in all data, so nothing can rise"
        raise DeploycheckError(what, hint="choose another feature, or remove the property")
    levels = st.lists(st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1)), min_size=2, max_size=2, unique=True)

    def step(row: Row, pair: list[float]) -> Step:
        return Step(row, name, feature, min(pair), max(pair), domain)

    return st.builds(step, rows(domain), levels)


def _check(predictor: Predictor, step: Step, settings: MonotoneSettings) -> str:
    low, high = _measured(predictor.predict(step.inputs), settings)
    rises = high - low if settings.direction == "increasing" else low - high
    if rises >= -settings.tolerance:
        return ""
    what = "the output" if settings.class_ is None else f"the probability of class {settings.class_}"
    return f"{what} goes from {low:.6g} to {high:.6g}, expected {settings.direction}"


def _measured(outputs: Mapping[str, np.ndarray], settings: MonotoneSettings) -> tuple[float, float]:
    """Return what must be monotone of two rows' outputs."""
    array = only_output(outputs, settings.output).astype(np.float64).reshape(2, -1)
    if settings.class_ is None:
        if array.shape[1] != 1:
            what = f"the model gives {array.shape[1]} numbers per example"
            raise DeploycheckError(what, hint="say which class must be monotone: add `class: NUMBER`")
        return float(array[0, 0]), float(array[1, 0])
    if settings.class_ >= array.shape[1]:
        raise DeploycheckError(
            f"the model gives {array.shape[1]} numbers, so it has no class {settings.class_}",
            hint=f"give a `class` from 0 to {array.shape[1] - 1}",
        )
    powers = np.exp(array - array.max(axis=1, keepdims=True))
    low, high = powers[:, settings.class_] / powers.sum(axis=1)
    return float(low), float(high)


MONOTONE_IN = Property(
    name="monotone_in", check=_check, settings=MonotoneSettings, cases=_cases, find_mistakes=_find_mistakes
)
