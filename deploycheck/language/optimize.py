"""The ``optimize`` section: what a search looks for, and the values that it may try.

Whether the parts that it varies are parts of the spec is checked in ``language/space.py``, with the whole spec.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationInfo,
    model_validator,
)

from deploycheck.language.errors import Mistake
from deploycheck.language.fields import (
    Installed,
    Number,
    Positive,
    Section,
    Seed,
    Share,
    Whole,
    mistake,
    refuse,
    refuse_incomplete,
    unique,
)
from deploycheck.language.vocabulary import LOSS, PARAMETERS, Vocabulary

MOST_PARAMETERS, MOST_TRIALS = 100, 10_000
LARGEST = 1e12

Kind = Literal["log", "uniform", "integers", "choice"]


def _check_range(ends: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(ends) != 2:
        raise mistake(f"a range is two numbers, [low, high], found {len(ends)}")
    low, high = ends
    if low >= high:
        raise mistake(f"a range goes from low to high, found {low:g} to {high:g}")
    return ends


def _check_positive(ends: tuple[float, ...]) -> tuple[float, ...]:
    if ends[0] <= 0:
        raise mistake(f"a logarithmic range is above 0, found {ends[0]:g}", "use `uniform`, or begin above 0")
    return ends


def _check_choice(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(values) < 2:
        raise mistake(f"a choice is between two values or more, found {len(values)}")
    return values


_Bound = Annotated[Number, Field(ge=-LARGEST, le=LARGEST)]
_Integer = Annotated[StrictInt, Field(ge=-(2**31), le=2**31 - 1)]
_TWO = Field(json_schema_extra={"minItems": 2, "maxItems": 2})
_Range = Annotated[tuple[_Bound, ...], AfterValidator(_check_range), _TWO]


class Parameter(Section):
    """The values of one part of the spec: between two numbers, or one of a list. Exactly one field is given."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    log: Annotated[_Range, AfterValidator(_check_positive)] | None = Field(
        default=None, description="From low to high, uniform in the logarithm"
    )
    uniform: _Range | None = Field(default=None, description="From low to high")
    integers: Annotated[tuple[_Integer, ...], AfterValidator(_check_range), _TWO] | None = Field(
        default=None, description="Whole numbers from low to high, both included"
    )
    choice: (
        Annotated[
            tuple[Any, ...],
            Field(max_length=1_000, json_schema_extra={"minItems": 2}),
            AfterValidator(_check_choice),
            AfterValidator(unique("value")),
        ]
        | None
    ) = Field(default=None, description="One of these values, which may be of any kind")

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if len(self._given()) != 1:
            found = ", ".join(self._given()) or "none"
            raise mistake(f"a parameter has one of log, uniform, integers and choice, found {found}", key=True)
        return self

    def _given(self) -> dict[Kind, tuple[Any, ...]]:
        return {name: values for name, values in self if values is not None}  # type: ignore[misc]

    @property
    def kind(self) -> Kind:
        """Which of the fields is given."""
        return next(iter(self._given()))

    @property
    def values(self) -> tuple[Any, ...]:
        """The two ends of the range, or all values of the choice."""
        return next(iter(self._given().values()))

    @property
    def count(self) -> float:
        """How many values it has; infinite for a range of real numbers."""
        match self.kind:
            case "choice":
                return len(self.values)
            case "integers":
                return int(self.values[1] - self.values[0] + 1)
        return math.inf


def _as_list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


_Objectives = Annotated[
    tuple[Annotated[StrictStr, Installed("objective")], ...],
    BeforeValidator(_as_list, json_schema_input_type=StrictStr | list[Annotated[StrictStr, Installed("objective")]]),
    AfterValidator(unique("objective")),
]


class Search(Section):
    """How the search chooses what to try, how often, and what it looks for."""

    sampler: Annotated[StrictStr, Installed("sampler")] = "tpe"
    trials: Annotated[Positive, Field(le=MOST_TRIALS)]
    maximize: _Objectives = ()
    minimize: _Objectives = ()
    tolerance: Share | None = Field(
        default=None,
        description="With several objectives: by how much of its best value an objective may be worse, so that the "
        "next one can be better; 1 % if left out",
    )
    stop_hopeless: StrictBool = Field(
        default=False,
        description="End a trial that is worse after an epoch than half of the complete trials were",
    )
    seed: Seed = 0

    @property
    def objectives(self) -> tuple[str, ...]:
        """What the search looks for, the most important first."""
        return self.maximize + self.minimize

    @model_validator(mode="after")
    def _check_objectives(self) -> Self:
        if not self.objectives:
            refuse_incomplete("a search needs `maximize` or `minimize`")
        refuse(self._find_mistakes())
        return self

    def _find_mistakes(self) -> Iterator[Mistake]:
        for name in self.maximize:
            if name in (LOSS, PARAMETERS):
                yield Mistake(("maximize",), f"{name} is better the lower it is", f"write `minimize: {name}`", key=True)
        for name in self.minimize:
            if name not in (LOSS, PARAMETERS):
                what = f"{name} is better the higher it is"
                yield Mistake(("minimize",), what, f"write `maximize: {name}`", key=True)
        if len(self.objectives) == 1 and self.tolerance is not None:
            what = "`tolerance` has no effect with one objective: the best trial is taken"
            yield Mistake(("tolerance",), what, "leave it out", key=True)
        if self.stop_hopeless and (len(self.objectives) > 1 or self.objectives == (PARAMETERS,)):
            what = "a trial can be stopped only for a single objective that each epoch reports"
            yield Mistake(("stop_hopeless",), what, "leave it out", key=True)


_Space = dict[StrictStr, Annotated[Parameter, Whole()]]


class Optimize(Section):
    """A search, before the training, for the parts of the spec that are best on the validation split."""

    search: Search
    space: Annotated[_Space, Field(min_length=1, max_length=MOST_PARAMETERS)] = Field(
        description="The parts of the spec that are varied, by their paths, each with its values"
    )

    @model_validator(mode="after")
    def _check_sampler(self, info: ValidationInfo) -> Self:
        vocabulary: Vocabulary | None = info.context
        if vocabulary is not None:
            refuse(self._find_misfits(vocabulary))
        return self

    def _find_misfits(self, vocabulary: Vocabulary) -> Iterator[Mistake]:
        """Yield what the sampler can't do."""
        search, name = self.search, self.search.sampler
        sampler = vocabulary.samplers[name]
        for path, parameter in self.space.items():
            if parameter.kind not in sampler.ranges:
                hint = f"it takes {', '.join(sorted(sampler.ranges))}"
                what = f"the sampler {name} can't vary a part by `{parameter.kind}`"
                yield Mistake(("space", path, parameter.kind), what, hint, key=True)
        if len(search.objectives) > sampler.most_objectives:
            what = f"the sampler {name} has {sampler.most_objectives} objective, found {len(search.objectives)}"
            others = [other for other, word in vocabulary.samplers.items() if word.most_objectives > 1]
            yield Mistake(("search", "sampler"), what, f"for several, use {' or '.join(others)}")
        if len(self.space) < sampler.fewest_parameters:
            what = f"the sampler {name} varies {sampler.fewest_parameters} parts or more, found {len(self.space)}"
            yield Mistake(("search", "sampler"), what)
        points = math.prod(parameter.count for parameter in self.space.values())
        if sampler.each_once and math.isfinite(points) and search.trials != points:
            what = f"the space has {points:,} points, and the sampler {name} tries each once"
            hint = f"write `trials: {points}`" if points <= MOST_TRIALS else "list fewer values"
            yield Mistake(("search", "trials"), what, hint)
