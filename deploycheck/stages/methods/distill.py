"""``distill``: a smaller model that learns from a larger one. The arithmetic is in ``stages/distillation.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import AfterValidator, Field, StrictStr, model_validator

from deploycheck.language import AnotherModel
from deploycheck.language.errors import Mistake
from deploycheck.language.fields import Number, Section, mistake, refuse
from deploycheck.stages.methods.finetuning import Finetune, Mixture
from deploycheck.stages.methods.quantize import Precision, QuantizeOptions

if TYPE_CHECKING:
    from deploycheck.stages.methods import Builder
    from deploycheck.stages.model import Model
    from deploycheck.stages.trainer import Trainer


def _check_parts(parts: dict[str, str]) -> dict[str, str]:
    if not parts:
        raise mistake("no part is paired with one of the teacher", "give a part of each: {blocks/0: blocks/1}")
    return parts


class HintOptions(Section):
    """What the student learns from inside its teacher: ``parts`` of the student, each with one of the teacher.

    A part is a part of a model's parameters' tree. ``weight`` is that of the mean squared difference in the loss.
    """

    parts: Annotated[
        dict[StrictStr, StrictStr], AfterValidator(_check_parts), Field(json_schema_extra={"minProperties": 1})
    ]
    weight: Annotated[Number, Field(gt=0, le=1_000_000)]


class DistillOptions(Mixture):
    """The student, and what it learns from.

    Without ``train`` the student is trained as the spec trains its model. With ``quantize`` it is trained with its
    numbers rounded, and quantised at the end.
    """

    model: AnotherModel
    hints: HintOptions | None = None
    train: Finetune | None = None
    quantize: Precision | None = None

    @property
    def looks_inside(self) -> bool:
        """Whether the teacher's program is looked into: without hints, only its answers count."""
        return self.hints is not None

    @property
    def quantized(self) -> QuantizeOptions | None:
        """How the student is quantised, as the options of ``quantize``; None where it isn't."""
        return None if self.quantize is None else QuantizeOptions.model_construct(**dict(self.quantize))

    @model_validator(mode="after")
    def _check_hints(self) -> Self:
        if self.hints and self.quantize:
            what, hint = "a student that is quantised learns without hints", "leave out `hints` or `quantize`"
            refuse([Mistake(("hints",), what, hint, key=True)])
        return self


class Distill:
    """A student that is trained from its own first weights to give what its teacher, the source, gives."""

    name = "distill"
    options = DistillOptions
    trains = True

    def compress(self, source: Model, options: DistillOptions, trainer: Trainer | None) -> Model:
        """Return the trained student; raise ``DeploycheckError`` where its outputs aren't of its teacher's shapes."""
        from deploycheck.stages.distillation import Hints, distill, lesson_of
        from deploycheck.stages.quantization.training import train_quantized

        if trainer is None:
            raise ValueError("a distillation needs a trainer")
        student, recipe = self._student(options, trainer.build), trainer.recipe_for(options.train, self.name)
        if options.quantized is not None:
            lesson = lesson_of(source, student, trainer, recipe, alpha=options.alpha, temperature=options.temperature)
            return train_quantized(student, options.quantized, trainer, recipe, lesson, name=self.name)
        return distill(
            source,
            student,
            trainer,
            recipe,
            alpha=options.alpha,
            temperature=options.temperature,
            hints=Hints(options.hints.parts, options.hints.weight) if options.hints else None,
        )

    def structure(self, source: Model, options: DistillOptions, build: Builder) -> Model:
        """Return the student's form."""
        from deploycheck.stages.quantization import quantized_form

        del source
        form = self._student(options, build).form
        return form if options.quantized is None else quantized_form(form, options.quantized)

    def check(self, source: Model, options: DistillOptions, build: Builder) -> None:
        """Raise ``DeploycheckError`` where the student can't learn from a teacher with the form ``source``."""
        from deploycheck.stages.distillation import check_outputs
        from deploycheck.stages.hints import check_hints

        student = self._student(options, build).form
        check_outputs(source, student)
        if options.hints:
            check_hints(student, source, options.hints.parts)

    def _student(self, options: DistillOptions, build: Builder) -> Model:
        return build(options.model.build, options.model.arguments)


DISTILL = Distill()
