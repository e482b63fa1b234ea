"""The types that the fields of a spec are made of, for the language's own sections and for options of plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, NoReturn

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    Strict,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from deploycheck.language.errors import Mistake, did_you_mean
from deploycheck.language.names import IMPORT_PATH, import_hint
from deploycheck.language.threshold import ThresholdError, parse_quantity
from deploycheck.language.vocabulary import UNITS, Dimension, Vocabulary


class Section(BaseModel):
    """A part of a spec: frozen, and closed to unknown keys.

    The options of a compression method are a ``Section`` of its own; a mistake in them is reported like any other.
    Validators may find the ``Vocabulary`` in ``info.context``; without it, every name is accepted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=False, defer_build=True)


def mistake(what: str, hint: str = "", *, key: bool = False) -> PydanticCustomError:
    """Return the error with which a validator refuses its value; with ``key`` it is placed at the value's key."""
    return PydanticCustomError("mistake", "{what}", {"what": what, "hint": hint, "key": key})


def refuse(mistakes: Iterable[Mistake]) -> None:
    """Refuse a section for each mistake within it, if there is any; their paths begin at the section."""
    details = [
        InitErrorDetails(type=mistake(each.what, each.hint, key=each.key), loc=each.path, input=None)
        for each in mistakes
    ]
    if details:
        raise ValidationError.from_exception_data("section", details)


def refuse_incomplete(what: str) -> NoReturn:
    """Refuse a section for what it lacks; for a standard this is not a mistake, because specs complete it."""
    raise PydanticCustomError("incomplete", "{what}", {"what": what, "hint": "", "key": False})


def refuse_missing(key: str) -> NoReturn:
    """Refuse a section without a key that it must have here, as pydantic refuses one that it must have always."""
    raise ValidationError.from_exception_data("section", [InitErrorDetails(type="missing", loc=(key,), input=None)])


def _quantity(dimension: Dimension) -> tuple[BeforeValidator, PlainSerializer]:
    """Return how a quantity is read from its text, and written as text in JSON."""
    unit, scale = next((unit, scale) for unit, scale in UNITS[dimension].items() if scale == 1 or unit == "%")

    def read(value: Any) -> Any:
        try:
            return parse_quantity(str(value), dimension)
        except ThresholdError as error:
            raise PydanticCustomError("quantity", "{what}", {"what": str(error)}) from error

    def write(value: float) -> str:
        return f"{Decimal(repr(value)) / Decimal(repr(scale)):f} {unit}"

    return BeforeValidator(read, json_schema_input_type=str), PlainSerializer(write, return_type=str, when_used="json")


Share = Annotated[float, *_quantity(Dimension.PROPORTION), Field(ge=0, le=1)]
Seconds = Annotated[float, *_quantity(Dimension.TIME), Field(ge=0, le=86_400)]
PerSecond = Annotated[float, *_quantity(Dimension.RATE), Field(ge=0.001, le=1_000_000)]

NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
Name = Annotated[StrictStr, Field(pattern=NAME)]
Seed = Annotated[StrictInt, Field(ge=0, le=2**32 - 1)]
"""What both NumPy and JAX take on every device: 32 bits."""
Positive = Annotated[StrictInt, Field(ge=1, le=2**31 - 1)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]


def check_import_path(value: str) -> str:
    """Return an import path as it is; refuse any other text."""
    if not IMPORT_PATH.fullmatch(value):
        raise mistake(f"{value!r} is not an import path", import_hint(value))
    return value


ImportPath = Annotated[
    StrictStr, AfterValidator(check_import_path), Field(json_schema_extra={"pattern": f"^{IMPORT_PATH.pattern}$"})
]


@dataclass(frozen=True)
class Whole:
    """Marks a mapping that is given as a whole: a spec's replaces a standard's, where others are merged."""


Arguments = dict[str, Any]
"""Keyword arguments for someone else's function."""
With = Annotated[Arguments, Whole()]
One = Annotated[dict[str, Arguments], Field(min_length=1, max_length=1), Whole()]
"""A mapping with one key, the name of a thing, whose value is its arguments."""


@dataclass(frozen=True)
class Installed:
    """Marks a name that must be installed: one of ``Vocabulary.names(kind)``. ``kind`` is as messages call it."""

    kind: Literal["loss", "score", "objective", "sampler", "runtime", "scenario"]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "installed": self.kind}

    def _check(self, name: str, info: ValidationInfo) -> str:
        vocabulary: Vocabulary | None = info.context
        if vocabulary is not None:
            check_known(name, vocabulary.names(self.kind), self.kind)
        return name


def check_known(name: str, known: Iterable[str], kind: str) -> None:
    """Refuse a name that is not a known one of its kind."""
    names = list(known)
    if name not in names:
        raise mistake(f"unknown {kind} {name!r}", did_you_mean(name, names))


def unique(kind: str) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Return a validator that refuses a list with an item twice; ``kind`` is what messages call an item."""

    def check(items: tuple[Any, ...]) -> tuple[Any, ...]:
        twice = next((item for item in items if items.count(item) > 1), None)
        if twice is not None:
            raise mistake(f"the {kind} {twice!r} is listed twice")
        return items

    return check
