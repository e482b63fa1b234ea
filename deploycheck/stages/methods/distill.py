"""``distill``: a smaller model that learns from a larger one. The arithmetic is in ``stages/distillation.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field, StrictStr

from deploycheck.language import AnotherModel
from deploycheck.language.fields import Number, Section, mistake
from deploycheck.stages.methods.finetuning import Finetune

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


class DistillOptions(Section):
    """The student, and what it learns from.

    ``alpha`` (0..1) is the weight of the teacher, and 1 - ``alpha`` that of the labels. ``temperature`` softens the
    logits of both models; 1 if it is left out. Without ``train`` the student is trained as the spec trains its model.
    """

    model: AnotherModel
    alpha: Annotated[Number, Field(ge=0, le=1)]
    temperature: Annotated[Number, Field(gt=0, le=1_000)] | None = None
    hints: HintOptions | None = None
    train: Finetune | None = None


class Distill:
    """A student that is trained from its own first weights to give what its teacher, the source, gives."""

    name = "distill"
    options = DistillOptions
    trains = True

    def compress(self, source: Model, options: DistillOptions, trainer: Trainer | None) -> Model:
        """Return the trained student; raise ``DeploycheckError`` where its outputs aren't of its teacher's shapes."""
        from deploycheck.stages.distillation import Hints, distill

        if trainer is None:
            raise ValueError("a distillation needs a trainer")
        return distill(
            source,
            self._student(options, trainer.build),
            trainer,
            trainer.recipe_for(options.train, self.name),
            alpha=options.alpha,
            temperature=options.temperature,
            hints=Hints(options.hints.parts, options.hints.weight) if options.hints else None,
        )

    def structure(self, source: Model, options: DistillOptions, build: Builder) -> Model:
        """Return the student's form."""
        del source
        return self._student(options, build).form

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
