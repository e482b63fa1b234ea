"""The sections of a spec. Each validates what can be said of it alone."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from deploycheck.language.errors import Mistake, did_you_mean, shorten
from deploycheck.language.fields import (
    Arguments,
    ImportPath,
    Installed,
    Name,
    Number,
    One,
    PerSecond,
    Positive,
    Seconds,
    Section,
    Seed,
    Share,
    Whole,
    With,
    check_import_path,
    check_known,
    mistake,
    refuse,
    refuse_incomplete,
    refuse_missing,
    unique,
)
from deploycheck.language.properties import WrittenProperty
from deploycheck.language.reach import MOST_OBSERVATIONS
from deploycheck.language.vocabulary import Dimension, Metric, Vocabulary

LABEL = "label"
"""What examples can be sliced by without a column."""


class Slices(Section):
    """The examples cut by ``label``, or by a column that the loader gives; each slice has ``at_least`` of them."""

    by: StrictStr
    at_least: Annotated[Positive, Field(le=MOST_OBSERVATIONS)] = 30


class Expect(Section):
    """A check's long form; a plain string is its ``threshold``."""

    threshold: StrictStr
    severity: Literal["error", "warn"] = "error"
    confidence: Annotated[Share, Field(ge=0.5, lt=1)] | None = None
    slices: Slices | None = None
    baseline: Literal["required", "optional"] | None = None


def _long_form(value: Any) -> Any:
    if isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return {"threshold": str(value)}
    return value


Expectations = dict[str, Annotated[Expect, BeforeValidator(_long_form, json_schema_input_type=StrictStr | Expect)]]


MOST_AXES = 32
MOST_ELEMENTS = 2**30
"""Of one example: 4 GiB in float32."""


def _check_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    elements = math.prod(shape)
    if elements > MOST_ELEMENTS:
        raise mistake(f"an example of this shape has {elements:,} elements, more than {MOST_ELEMENTS:,}")
    return shape


class Input(Section):
    """One input of a model; its shape is that of one example, without the batch."""

    shape: Annotated[tuple[Positive, ...], Field(max_length=MOST_AXES), AfterValidator(_check_shape)]
    dtype: Literal["bool", "int8", "int16", "int32", "uint8", "uint16", "uint32", "float16", "float32"]


def _installed_or_path(kind: str, names: Callable[[Vocabulary], Iterable[str]]) -> AfterValidator:
    """Return a validator of an import path or an installed name; ``kind`` is what messages call such a name."""

    def check(load: str, info: ValidationInfo) -> str:
        vocabulary: Vocabulary | None = info.context
        if ":" in load or "." in load:
            check_import_path(load)
        elif vocabulary is not None:
            check_known(load, names(vocabulary), kind)
        return load

    return AfterValidator(check)


SHA256 = "^[0-9a-f]{64}$"


def _check_digest(digest: str) -> str:
    if not re.fullmatch(SHA256, digest):
        raise mistake(f"{shorten(digest)} is not 64 small hexadecimal digits", "`sha256sum FILE` prints them")
    return digest


Digest = Annotated[StrictStr, AfterValidator(_check_digest), Field(json_schema_extra={"pattern": SHA256})]


class Weights(Section):
    """Weights that a model has before any training, from a file or a folder of the project.

    ``names`` says where each of the model's weights is: a table from its name to that in the file, or the import path
    of a function that takes all arrays of the file by name and returns those of the model by name.
    """

    load: Annotated[StrictStr, _installed_or_path("format of weights", lambda installed: installed.formats)]
    path: StrictStr
    sha256: Digest | None = None
    names: Annotated[dict[StrictStr, StrictStr], Field(min_length=1), Whole()] | ImportPath | None = None


class Model(Section):
    """What is shipped: a callable that returns the model, with its keyword arguments, and its first weights.

    Or an ``artifact``, which has both: an ONNX file, or a folder that was exported; with its digest.
    """

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["build"]}, {"required": ["artifact"]}]})

    build: ImportPath | None = None
    arguments: With = Field(default={}, alias="with")
    artifact: StrictStr | None = None
    sha256: Digest | None = None
    input: Annotated[dict[Name, Input], Field(min_length=1)]
    weights: Weights | None = None

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        """Refuse a model with neither code nor a file, and one with both."""
        given = {"with" if name == "arguments" else name for name in self.model_fields_set}
        if self.artifact is not None:
            both = sorted(given & {"build", "with", "weights"})
            refuse(
                Mistake((key,), f"`artifact` is the whole model, so `{key}` has no effect", "leave one out", key=True)
                for key in both
            )
        elif self.build is None and "build" in given:
            refuse([Mistake(("build",), "`model.build`: expected a text, found None")])
        elif self.build is None:
            refuse_missing("build")
        elif "sha256" in given:
            what = "`sha256` is the digest of an `artifact`, and there is none"
            refuse([Mistake(("sha256",), what, "that of `weights` is written there", key=True)])
        return self


class Split(Section):
    """How examples are divided; the three shares sum to 1."""

    train: Annotated[Number, Field(ge=0, lt=1)] = 0.8
    validation: Annotated[Number, Field(ge=0, lt=1)] = 0.1
    test: Annotated[Number, Field(gt=0, le=1)] = 0.1
    seed: Seed = 0
    stratify: StrictBool = True

    @model_validator(mode="after")
    def _check_sum(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) >= 1e-9:
            refuse_incomplete(f"train, validation and test sum to {total:g}, expected 1")
        return self


def _check_step(step: dict[str, Arguments], info: ValidationInfo) -> dict[str, Arguments]:
    (name,) = step
    vocabulary: Vocabulary | None = info.context
    if vocabulary is not None and ":" not in name and name not in vocabulary.preprocessing:
        hint = did_you_mean(name, vocabulary.preprocessing)
        refuse([Mistake((name,), f"unknown preprocessing step {name!r}", hint, key=True)])
    return step


class Data(Section):
    """Where examples come from, and what must be true of them."""

    load: Annotated[StrictStr, _installed_or_path("loader", lambda installed: installed.loaders)]
    arguments: With = Field(default={}, alias="with")
    split: Split = Split()
    preprocess: tuple[Annotated[One, AfterValidator(_check_step)], ...] = ()
    expect: Expectations = Field(default={})


class ScheduleOptions(Section):
    """``warmup``: the share of steps over which the rate rises from 0; ``end``: the share of it left at the end."""

    warmup: Share = 0.0
    end: Share = 0.0


class Regularize(Section):
    """Weights of the penalties on kernels."""

    l1: Annotated[Number, Field(ge=0, le=1_000_000)] = 0.0
    l2: Annotated[Number, Field(ge=0, le=1_000_000)] = 0.0


MOST_EPOCHS = 1_000_000
HIGHEST_RATE = 1_000
_RATE_SCHEMA: dict[str, Any] = {
    "additionalProperties": {
        "type": "object",
        "properties": {"learning_rate": {"type": "number", "minimum": 0, "maximum": HIGHEST_RATE}},
    }
}


def _check_rate(optimizer: dict[str, Arguments]) -> dict[str, Arguments]:
    """Check the one argument that almost every optimiser of optax has; the others are optax's own."""
    ((name, arguments),) = optimizer.items()
    rate = arguments.get("learning_rate", 0)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= HIGHEST_RATE:
        what = f"a learning rate is a number from 0 to {HIGHEST_RATE:,}, found {shorten(rate)}"
        refuse([Mistake((name, "learning_rate"), what)])
    return optimizer


class StopEarly(Section):
    """Stop after ``patience`` epochs without a better ``watch``, and keep the best epoch."""

    watch: Annotated[StrictStr, Installed("score")] = "validation.loss"
    patience: Annotated[Positive, Field(le=MOST_EPOCHS)]


class Train(Section):
    """How the model is trained, and what it must reach. The loss selects the task: what labels and outputs are.

    A model that has ``weights`` can go without training: leave out ``optimizer``, ``epochs`` and ``batch_size``.
    """

    loss: Annotated[StrictStr, Installed("loss")] = "cross_entropy"
    optimizer: Annotated[One, AfterValidator(_check_rate), Field(json_schema_extra=_RATE_SCHEMA)] | None = None
    schedule: Annotated[
        dict[Literal["constant", "cosine", "linear"], ScheduleOptions], Field(min_length=1, max_length=1), Whole()
    ] = Field(default={"constant": ScheduleOptions()})
    regularize: Regularize = Regularize()
    epochs: Annotated[Positive, Field(le=MOST_EPOCHS)] | None = None
    batch_size: Annotated[Positive, Field(le=1_000_000)] | None = None
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=1_000), AfterValidator(unique("seed"))] = (0,)
    stop_early: StopEarly | None = None
    expect: Expectations = Field(default={})

    @property
    def trains(self) -> bool:
        """Whether the model is trained, and not only taken as it is."""
        return self.epochs is not None

    @model_validator(mode="after")
    def _check_watch(self, info: ValidationInfo) -> Self:
        vocabulary: Vocabulary | None = info.context
        task = vocabulary.task_of(self.loss) if vocabulary else None
        watched = self.stop_early.watch.removeprefix("validation.") if self.stop_early else "loss"
        if task and watched not in ("loss", *task.scores):
            reported = " or ".join(f"validation.{score}" for score in ("loss", *task.scores))
            what = f"with `loss: {self.loss}` training reports no {watched}"
            refuse([Mistake(("stop_early", "watch"), what, f"watch {reported}")])
        return self


class Batching(Section):
    """How requests are put together: the largest batch, and how long the first in it may wait."""

    max_size: Annotated[Positive, Field(le=65_536)] = 32
    max_delay: Annotated[Seconds, Field(le=60)] = 0.002


LOAD_S = 10.0
"""A load lasts this long unless the spec says otherwise: a stall that comes while nobody watches isn't seen."""


class Load(Section):
    """The load under which a server is measured (MLPerf's scenarios)."""

    scenario: Annotated[StrictStr, Installed("scenario")] = "server"
    arrivals: Literal["poisson", "constant"] = "poisson"
    rate: PerSecond = 100.0
    requests: Annotated[Positive, Field(le=MOST_OBSERVATIONS)] | None = Field(
        default=None, description="At most this many; if left out 5000, or as many as `min_duration` takes"
    )
    min_duration: Seconds | None = Field(
        default=None,
        description="The least time that the load takes; rare stalls need long. If left out 10 s, or as long as the "
        "`requests` given take, if that is less",
    )
    seed: Seed = 0

    @property
    def most_requests(self) -> int:
        """How many requests are sent at most, unless ``least_s`` takes more."""
        return self.requests or 5000

    @property
    def least_s(self) -> float:
        """How many seconds a load lasts at least, whatever number of requests that takes."""
        return self.undecided_s if self.requests is None else self.min_duration or 0.0

    @property
    def undecided_s(self) -> float:
        """For how many seconds a load goes on although its checks are decided, unless all requests are sent before."""
        return LOAD_S if self.min_duration is None else self.min_duration

    @model_validator(mode="after")
    def _check_scenario(self, info: ValidationInfo) -> Self:
        vocabulary: Vocabulary | None = info.context
        if vocabulary is not None:
            given = {"arrivals", "rate"} & self.model_fields_set
            refuse(
                Mistake((name,), f"the scenario {self.scenario} has no `{name}`", "leave it out", key=True)
                for name in sorted(given - vocabulary.scenarios[self.scenario])
            )
        return self


class Serve(Section):
    """What is served, how, and what its callers must see."""

    variants: Annotated[tuple[StrictStr, ...], Field(min_length=1), AfterValidator(unique("variant"))] = ("trained",)
    runtime: Annotated[StrictStr, Installed("runtime")] = "xla"
    batching: Batching = Batching()
    load: Load = Load()
    expect: Expectations = Field(default={})
    properties: tuple[WrittenProperty, ...] = Field(
        default=(), description="What must hold for every input of the running server"
    )


def _check_registry(url: str, info: ValidationInfo) -> str:
    vocabulary: Vocabulary | None = info.context
    if vocabulary is not None:
        check_known(url.partition(":")[0], vocabulary.registries, "registry")
    return url


class Promote(Section):
    """Where a model goes that passed: its name in the registry, the alias that moves, and which variant."""

    registry: Annotated[StrictStr, AfterValidator(_check_registry)] | None = None
    model: Name
    to: Name
    choose: StrictStr = "smallest"
    baseline: Literal["required", "optional"] = Field(
        default="required",
        description="Whether a check `of baseline` fails or warns while nothing is promoted yet",
    )


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
"""The arguments that a user's own metric is called with."""


class OwnMetric(Section):
    """A user's own metric: a callable of the test split's ``labels`` and a variant's ``outputs``.

    ``proportion``: it returns which examples count, ``[n]`` of bool; ``mean``: one number per example, ``[n]``;
    ``statistic``: one number for all examples it is given, which is computed again on resampled examples.
    """

    use: ImportPath
    arguments: With = Field(default={}, alias="with")
    kind: Literal["proportion", "mean", "statistic"]
    direction: Literal["higher", "lower"]

    def word(self, name: str) -> Metric:
        """Return the metric as the language knows it; it may measure models of any task."""
        dimension = Dimension.PROPORTION if self.kind == "proportion" else Dimension.NUMBER
        return Metric(name, dimension, self.direction, frozenset({"train", "compress"}), sampled=True)


class Waiver(Section):
    """A check that may fail for now."""

    because: Annotated[StrictStr, Field(min_length=1)]
    until: Annotated[date, BeforeValidator(_day)]
    by: Annotated[StrictStr, Field(min_length=1)]
