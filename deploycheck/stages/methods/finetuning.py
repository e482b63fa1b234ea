"""How a method trains: what of the spec's ``train`` section it changes, and a teacher. Doesn't import JAX."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from deploycheck.language.fields import Number, Positive, Section
from deploycheck.language.spec import HIGHEST_RATE, MOST_EPOCHS

if TYPE_CHECKING:
    from deploycheck.stages.recipe import Recipe


class Mixture(Section):
    """What a model learns from: a teacher with the weight ``alpha`` (0..1), and the labels with 1 - ``alpha``.

    ``temperature`` softens the logits of both models; 1 if it is left out.
    """

    alpha: Annotated[Number, Field(ge=0, le=1)]
    temperature: Annotated[Number, Field(gt=0, le=1_000)] | None = None


class Finetune(Section):
    """Train further for ``epochs``; the rest is as in the spec's ``train`` section unless it is given here."""

    epochs: Annotated[Positive, Field(le=MOST_EPOCHS)]
    learning_rate: Annotated[Number, Field(gt=0, le=HIGHEST_RATE)] | None = None
    batch_size: Annotated[Positive, Field(le=1_000_000)] | None = None

    def recipe(self, base: Recipe) -> Recipe:
        """Return the spec's recipe with what is given here in its place."""
        rate = {} if self.learning_rate is None else {"learning_rate": self.learning_rate}
        return replace(
            base,
            options={**base.options, **rate},
            epochs=self.epochs,
            batch_size=self.batch_size or base.batch_size,
        )
