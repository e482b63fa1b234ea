"""What a model is before it is trained: what the steps that build it from the spec have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import Field

from deploycheck.language.fields import Arguments, ImportPath, Section
from deploycheck.language.spec import Input
from deploycheck.ref import Source
from deploycheck.steps.data import preprocess_of

if TYPE_CHECKING:
    from deploycheck.language import Spec
    from deploycheck.steps.trained import Config


class InitialModel(Section):
    """The model's code with its arguments, or its file; its inputs, its task and its preprocessing."""

    build: ImportPath | None = None
    arguments: Arguments = Field(default={})
    artifact: str | None = None
    input: dict[str, Input]
    task: str
    preprocess: tuple[tuple[str, Arguments], ...]

    def config(self, seed: int) -> Config:
        """Return what the model is that this seed builds."""
        from deploycheck.steps.trained import Config

        return Config(
            build=self.build,
            arguments=self.arguments,
            artifact=self.artifact,
            input=self.input,
            task=self.task,
            seed=seed,
            preprocess=self.preprocess,
        )

    def sources(self) -> Iterator[Source]:
        """Yield what building the model uses by name."""
        if self.build is not None:
            yield Source("models", self.build)
        yield from (Source("preprocessing", name) for name, _ in self.preprocess)
        yield Source("tasks", self.task)


def initial_model(spec: Spec) -> dict[str, Any]:
    """Return the fields of ``InitialModel`` for a spec."""
    return {
        "build": spec.model.build,
        "arguments": spec.model.arguments,
        "artifact": spec.model.artifact,
        "input": spec.model.input,
        "task": spec.task,
        "preprocess": preprocess_of(spec),
    }
