"""``quantize``: numbers with fewer bits. The arithmetic is in ``stages/quantization``, which imports JAX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, StrictStr, model_validator

from deploycheck.language.errors import Mistake, did_you_mean, shorten
from deploycheck.language.fields import Positive, Section, Share, mistake, refuse, unique
from deploycheck.stages.methods.finetuning import Finetune, Mixture

if TYPE_CHECKING:
    from deploycheck.stages.methods import Builder
    from deploycheck.stages.model import Model
    from deploycheck.stages.trainer import Trainer

LEAST_GROUP = 128
"""Of smaller groups, qwix multiplies the numbers in float."""

_Word = Literal["tensor", "channel"]


class PerGroup(Section):
    """A scale for each run of ``group`` weights along what a product sums over, in each of its outputs."""

    group: Annotated[Positive, Field(ge=2)]


def _read_per(value: Any) -> str | PerGroup:
    if isinstance(value, str) and value not in get_args(_Word):
        what = f"{shorten(value)} is not one of: {', '.join(get_args(_Word))}, {{group: N}}"
        raise mistake(what, did_you_mean(value, get_args(_Word)))
    return value if isinstance(value, str) else PerGroup.model_validate(value)


Per = Annotated[_Word | PerGroup, BeforeValidator(_read_per, json_schema_input_type=_Word | PerGroup)]
Pattern = Annotated[StrictStr, Field(min_length=1)]


_Type = Literal["int8", "int4", "fp8"]
BITS: Mapping[str, int] = {"int4": 4, "int8": 8, "fp8": 8}
"""The bits of each type."""

_Names = Annotated[tuple[Pattern, ...], Field(min_length=1), AfterValidator(unique("pattern"))]


class TypeByName(Section):
    """The type of each weight, by patterns of names. Of several types, a weight has the one with the most bits.

    A weight that no pattern matches stays in float.
    """

    int8: _Names | None = None
    int4: _Names | None = None
    fp8: _Names | None = None

    @property
    def patterns(self) -> dict[str, tuple[str, ...]]:
        """The patterns of each type, those of the fewest bits first."""
        given: dict[str, tuple[str, ...]] = {name: patterns for name, patterns in self if patterns}
        return dict(sorted(given.items(), key=lambda item: BITS[item[0]]))

    @model_validator(mode="after")
    def _check_given(self) -> Self:
        if not self.patterns:
            raise mistake("no type is given to any weight", 'name weights: {int4: ["*"], int8: ["head/*"]}')
        return self


def _read_weights(value: Any) -> str | TypeByName:
    if isinstance(value, str) and value not in BITS:
        types = get_args(_Type)
        raise mistake(f"{shorten(value)} is not one of: {', '.join(types)}", did_you_mean(value, types))
    return value if isinstance(value, str) else TypeByName.model_validate(value)


Weights = Annotated[_Type | TypeByName, BeforeValidator(_read_weights, json_schema_input_type=_Type | TypeByName)]


class Calibrate(Section):
    """How the ranges of activations are found, from this many examples of the training split."""

    method: Literal["absmax", "percentile", "mse"] = "absmax"
    examples: Annotated[Positive, Field(le=100_000)] = 128


class Gptq(Section):
    """Weights are rounded by GPTQ, for the inputs that they have on this many examples of the training split."""

    examples: Annotated[Positive, Field(le=100_000)] = 128


class AwareFinetune(Finetune):
    """Train further with the numbers rounded as they are served; with ``distill`` the float model is the teacher."""

    distill: Mixture | None = None


class Precision(Section):
    """Which numbers are stored and multiplied in fewer bits, and the share of the parameters' bytes that must be.

    ``weights`` is the type of all weights, or the types of weights by patterns (as of file names) of their names.
    ``per`` says which weights share a scale: those of a whole weight (of each layer, where it holds several), of an
    output channel, or of a group in it. ``keep`` are patterns of weights that stay in float.
    """

    weights: Weights
    activations: Literal["int8"] | None = None
    per: Per = "channel"
    keep: Annotated[tuple[Pattern, ...], AfterValidator(unique("pattern"))] = ()
    at_least: Share = 0.5

    @property
    def types(self) -> dict[str, tuple[str, ...]]:
        """The types that weights get, each with the patterns of its weights."""
        return {self.weights: ("*",)} if isinstance(self.weights, str) else self.weights.patterns

    @model_validator(mode="after")
    def _check_activations(self) -> Self:
        at = ("activations",)
        if self.activations and "fp8" in self.types:
            refuse([Mistake(at, "int8 activations can't be multiplied with fp8 weights", "leave out `activations`")])
        if self.activations and isinstance(self.per, PerGroup) and self.per.group < LEAST_GROUP:
            what = (
                f"groups of {self.per.group} are multiplied in float, so activations in int8 would only lose accuracy"
            )
            hint = f"leave out `activations`, or use groups of at least {LEAST_GROUP}"
            refuse([Mistake(at, what, hint)])
        return self


class QuantizeOptions(Precision):
    """A precision, and how a trained model comes to it.

    Activations are scaled as they arrive, or by ranges that ``calibrate`` finds. With ``finetune`` the model is trained
    further while its numbers are rounded. Weights are rounded to nearest, or by ``gptq``.
    """

    calibrate: Calibrate | None = None
    gptq: Gptq | None = None
    finetune: AwareFinetune | None = None

    @property
    def looks_inside(self) -> bool:
        """Whether the source's program is looked into: weights are quantised where they are used."""
        return True

    @property
    def trains(self) -> bool:
        """Whether a ``Trainer`` is needed: to train further, or for its examples."""
        return any(part is not None for part in (self.calibrate, self.gptq, self.finetune))

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        if self.calibrate and not self.activations:
            what, hint = "only activations have ranges to calibrate", "add `activations: int8`"
            refuse([Mistake(("calibrate",), what, hint)])
        return self

    @model_validator(mode="after")
    def _check_gptq(self) -> Self:
        if self.gptq and "fp8" in self.types:
            refuse([Mistake(("gptq",), "GPTQ rounds to integers", "write `weights: int4`, or leave `gptq` out")])
        if self.gptq and self.finetune:
            what = "a training with rounded weights starts from rounding to nearest"
            refuse([Mistake(("gptq",), what, "leave out `gptq` or `finetune`")])
        return self


class Quantize:
    """Every weight of a product, a convolution or a lookup in fewer bits; activations too, where the options say so."""

    name = "quantize"
    options = QuantizeOptions
    trains = False

    def compress(self, source: Model, options: QuantizeOptions, trainer: Trainer | None) -> Model:
        """Return the quantised model; raise ``DeploycheckError`` where the options don't fit its weights."""
        from deploycheck.stages.quantization import quantize_weights

        if options.finetune is not None and trainer is not None:
            return _finetune(source, options, options.finetune, trainer)
        return quantize_weights(source, options, trainer.examples["train"] if trainer else None)

    def structure(self, source: Model, options: QuantizeOptions, build: Builder) -> Model:
        """Return the form of the quantised model."""
        from deploycheck.stages.quantization import quantized_form

        del build
        return quantized_form(source, options)

    def refine(self, source: Model, options: QuantizeOptions, trainer: Trainer) -> list[QuantizeOptions]:
        """Return options with more and more bits for the weights whose rounding costs most."""
        from deploycheck.stages.quantization import refine

        return refine(source, options, trainer.examples["validation"])

    def describe(self, source: Model, result: Model) -> str:
        """Return how much of the model is quantised, and which weights are rounded in another way than to nearest."""
        from deploycheck.stages.quantization import describe_rounding, describe_share

        parts = describe_share(result.weights), describe_rounding(source, result)
        return "; ".join(part for part in parts if part)


def _finetune(source: Model, options: QuantizeOptions, finetune: AwareFinetune, trainer: Trainer) -> Model:
    from deploycheck.stages.distillation import lesson_of
    from deploycheck.stages.quantization.training import train_quantized

    recipe = trainer.recipe_for(finetune, "quantize")
    lesson = None
    if (mixture := finetune.distill) is not None:
        lesson = lesson_of(source, source, trainer, recipe, alpha=mixture.alpha, temperature=mixture.temperature)
    return train_quantized(source, options, trainer, recipe, lesson, name="quantize")


QUANTIZE = Quantize()
