"""The typed tree of a spec, one class a section. The JSON Schema for editors is generated from it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StrictBool,
    StrictInt,
    StrictStr,
)
from pydantic_core import PydanticCustomError

from deploycheck.language.names import IMPORT_PATH
from deploycheck.language.threshold import ThresholdError, parse_quantity
from deploycheck.language.vocabulary import Dimension, Metric

NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
Name = Annotated[StrictStr, Field(pattern=NAME)]
Natural = Annotated[StrictInt, Field(ge=0)]
Positive = Annotated[StrictInt, Field(ge=1)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Arguments = dict[str, Any]


def _quantity(dimension: Dimension) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        try:
            return parse_quantity(str(value), dimension)
        except ThresholdError as error:
            raise PydanticCustomError("quantity", "{what}", {"what": str(error)}) from error

    return read


Share = Annotated[
    float, BeforeValidator(_quantity(Dimension.PROPORTION), json_schema_input_type=str), Field(ge=0, le=1)
]
Seconds = Annotated[float, BeforeValidator(_quantity(Dimension.TIME), json_schema_input_type=str), Field(ge=0)]
PerSecond = Annotated[float, BeforeValidator(_quantity(Dimension.RATE), json_schema_input_type=str), Field(gt=0)]


def _import_path(value: str) -> str:
    if not IMPORT_PATH.fullmatch(value):
        raise PydanticCustomError("import_path", "expected an import path, package.module:name")
    return value


ImportPath = Annotated[StrictStr, Field(pattern=f"^{IMPORT_PATH.pattern}$"), AfterValidator(_import_path)]


class Section(BaseModel):
    """A part of a spec: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=False, defer_build=True)


LABEL = "label"
"""What examples can be sliced by without a column."""


class Slices(Section):
    """The examples cut by ``label``, or by a column that the loader gives; each slice has ``at_least`` of them."""

    by: StrictStr
    at_least: Positive = 30


class Expect(Section):
    """A check's long form; a plain string is its ``threshold``."""

    threshold: StrictStr
    severity: Literal["error", "warn"] = "error"
    confidence: Annotated[Share, Field(ge=0.5, lt=1)] | None = None
    slices: Slices | None = None
    samples: Positive | None = None
    baseline: Literal["required", "optional"] | None = None


def _long_form(value: Any) -> Any:
    if isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return {"threshold": str(value)}
    return value


Expectations = dict[str, Annotated[Expect, BeforeValidator(_long_form, json_schema_input_type=StrictStr | Expect)]]
One = Annotated[dict[str, Arguments], Field(min_length=1, max_length=1)]
"""A mapping with one key, the name of a thing, whose value is its arguments."""


class Input(Section):
    """One input of a model, the batch left out of its shape."""

    shape: tuple[Positive, ...]
    dtype: Literal["bool", "int8", "int16", "int32", "uint8", "uint16", "uint32", "float16", "float32"]


class Model(Section):
    """What is trained: a callable that returns it, and what it takes."""

    build: ImportPath
    arguments: Arguments = Field(default={}, alias="with")
    input: Annotated[dict[Name, Input], Field(min_length=1)]


class Split(Section):
    """How examples are divided; the three shares sum to 1."""

    train: Annotated[Number, Field(gt=0, lt=1)] = 0.8
    validation: Annotated[Number, Field(gt=0, lt=1)] = 0.1
    test: Annotated[Number, Field(gt=0, lt=1)] = 0.1
    seed: Natural = 0
    stratify: StrictBool = True


class Data(Section):
    """Where examples come from, and what must be true of them."""

    load: StrictStr
    arguments: Arguments = Field(default={}, alias="with")
    split: Split = Split()
    preprocess: tuple[One, ...] = ()
    expect: Expectations = {}


class ScheduleOptions(Section):
    """``warmup``: the share of steps over which the rate rises from 0; ``end``: the share of it left at the end."""

    warmup: Share = 0.0
    end: Share = 0.0


class Regularize(Section):
    """Weights of the penalties on kernels."""

    l1: Annotated[Number, Field(ge=0)] = 0.0
    l2: Annotated[Number, Field(ge=0)] = 0.0


class StopEarly(Section):
    """Stop after ``patience`` epochs without a better ``watch``, and keep the best epoch."""

    watch: Literal["validation.loss", "validation.accuracy"] = "validation.loss"
    patience: Positive


def _unique(seeds: tuple[int, ...]) -> tuple[int, ...]:
    twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
    if twice is not None:
        raise PydanticCustomError("unique", "the seed {seed} stands here twice", {"seed": twice})
    return seeds


class Train(Section):
    """How the model is trained, and what it must reach.

    With ``cross_entropy`` labels are class numbers and the model gives a logit for each class; with
    ``squared_error`` they are numbers, and it gives one.
    """

    loss: Literal["cross_entropy", "squared_error"] = "cross_entropy"
    optimizer: One
    schedule: Annotated[
        dict[Literal["constant", "cosine", "linear"], ScheduleOptions], Field(min_length=1, max_length=1)
    ] = {"constant": ScheduleOptions()}
    regularize: Regularize = Regularize()
    epochs: Positive
    batch_size: Positive
    seeds: Annotated[tuple[Natural, ...], Field(min_length=1), AfterValidator(_unique)] = (0,)
    stop_early: StopEarly | None = None
    expect: Expectations = {}

    @property
    def target(self) -> str:
        """What a label is: a ``class`` or a ``number``."""
        return TARGETS[self.loss]


TARGETS = {"cross_entropy": "class", "squared_error": "number"}
"""A loss, to what a label is for it."""


class Search(Section):
    """A search over the space, before the final training."""

    sampler: Literal["tpe", "random", "grid", "genetic"]
    trials: Positive
    maximize: StrictStr | None = None
    minimize: StrictStr | None = None


class Optimize(Section):
    """What to vary: a path into the spec, to ``choice``, ``log``, ``uniform`` or ``int`` with its values."""

    search: Search
    space: Annotated[
        dict[
            str,
            Annotated[dict[Literal["choice", "log", "uniform", "int"], list[Any]], Field(min_length=1, max_length=1)],
        ],
        Field(min_length=1),
    ]
    expect: Expectations = {}


class Quantize(Section):
    """Numbers in fewer bits."""

    weights: Literal["int8", "int4"]
    activations: Literal["int8"] | None = None


class Finetune(Section):
    """Training after pruning."""

    epochs: Positive


class Prune(Section):
    """Weights set to zero."""

    sparsity: Share
    structure: Literal["unstructured", "channels", "2:4"] = "unstructured"
    finetune: Finetune | None = None


class Distill(Section):
    """A smaller model that learns from the trained one."""

    model: Arguments
    temperature: Annotated[Number, Field(gt=0)] = 1.0
    alpha: Annotated[Number, Field(ge=0, le=1)] = 0.5


class Variant(Section):
    """One deployable form: made from the trained model, or ``from`` another variant, by one method."""

    source: StrictStr | None = Field(default=None, alias="from")
    quantize: Quantize | None = None
    prune: Prune | None = None
    distill: Distill | None = None
    method: One | None = Field(default=None, description="A method that a plugin adds: its name, to its arguments")
    expect: Expectations = {}

    @property
    def methods(self) -> dict[str, Arguments]:
        """The methods given, by name, each with its arguments."""
        own = {"quantize": self.quantize, "prune": self.prune, "distill": self.distill}
        given = {name: section.model_dump(exclude_none=True) for name, section in own.items() if section is not None}
        return given | (self.method or {})


class Compress(Section):
    """The variants, and what each of them must keep."""

    variants: dict[Name, Variant] = {}
    expect: Expectations = {}


class Batching(Section):
    """How requests are put together: the largest batch, and how long the first in it may wait."""

    max_size: Positive = 32
    max_delay: Seconds = 0.002


class Load(Section):
    """The load a server is measured under (MLPerf's scenarios)."""

    scenario: Literal["server", "single_stream", "multi_stream", "offline"] = "server"
    arrivals: Literal["poisson", "constant"] = "poisson"
    rate: PerSecond = 100.0
    requests: Positive = Field(default=5000, description="The most; it ends as soon as every check is decided")
    min_duration: Seconds = Field(default=0.0, description="The least: a stall is seen only while it is looked for")
    seed: Natural = 0


class Serve(Section):
    """What is served, how, and what its callers must see."""

    variants: Annotated[tuple[StrictStr, ...], Field(min_length=1)] = ("trained",)
    runtime: StrictStr = "xla"
    batching: Batching = Batching()
    load: Load = Load()
    expect: Expectations = {}
    properties: tuple[Literal["batch_invariant", "deterministic", "finite", "rejects_malformed"], ...] = ()


class Promote(Section):
    """Where a model goes that passed: its name in the registry, the alias that moves, and which variant."""

    registry: StrictStr | None = None
    model: Name
    to: Name
    choose: StrictStr = "smallest"
    baseline: Literal["required", "optional"] = Field(
        default="required",
        description="Whether a check `of baseline` fails or warns while nothing is promoted yet",
    )


def _version(value: Any) -> Any:
    if type(value) is not int or value != 1:  # True and 1.0 equal 1
        raise PydanticCustomError("language_version", "unknown language version")
    return value


def _day(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    if isinstance(value, date):
        return value
    raise PydanticCustomError("day", "expected a day as YYYY-MM-DD")


ANSWERS = frozenset({"labels", "outputs"})
"""What a metric of the user's own is called with."""


class OwnMetric(Section):
    """A metric of the user's own: a callable of the test split's ``labels`` and a variant's ``outputs``.

    ``proportion``: it returns which examples count, ``[n]`` of bool; ``mean``: a number for each, ``[n]``;
    ``statistic``: one number of all it is given, which is computed anew on resampled examples.
    """

    use: ImportPath
    arguments: Arguments = Field(default={}, alias="with")
    kind: Literal["proportion", "mean", "statistic"]
    direction: Literal["higher", "lower"]

    def word(self, name: str) -> Metric:
        """Return the metric as the language knows it."""
        dimension = Dimension.PROPORTION if self.kind == "proportion" else Dimension.NUMBER
        return Metric(name, dimension, self.direction, frozenset({"train", "compress"}))


class Waiver(Section):
    """A check that may fail for now."""

    because: Annotated[StrictStr, Field(min_length=1)]
    until: Annotated[date, BeforeValidator(_day)]
    by: Annotated[StrictStr, Field(min_length=1)]


class Tree(Section):
    """A whole spec as it is written."""

    deploycheck: Annotated[Literal[1], BeforeValidator(_version)]
    name: Name
    description: StrictStr = ""
    owner: StrictStr = ""
    extends: StrictStr | None = None
    confidence: Annotated[Share, Field(ge=0.5, lt=1)] = 0.95
    model: Model | None = None
    data: Data | None = None
    train: Train | None = None
    optimize: Optimize | None = None
    compress: Compress | None = None
    serve: Serve | None = None
    promote: Promote | None = None
    metrics: dict[Name, OwnMetric] = {}
    matrix: dict[str, Annotated[list[Any], Field(min_length=1)]] | None = None
    waive: dict[str, Waiver] = {}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a spec file."""
    schema = Tree.model_json_schema(by_alias=True, mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "deploycheck spec", **schema}
