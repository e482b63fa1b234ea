"""``invariant_to``: a transformation of the input doesn't change the decision, or the outputs within a tolerance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

from pydantic import PrivateAttr, StrictStr, field_validator

from deploycheck.errors import DeploycheckError
from deploycheck.language.errors import Mistake, did_you_mean
from deploycheck.language.fields import Arguments, mistake
from deploycheck.language.names import check_arguments, signature_of
from deploycheck.language.spec import Input
from deploycheck.lazy import np
from deploycheck.properties.domain import Batch, Domain, cast_like, example_rows
from deploycheck.properties.outputs import changed
from deploycheck.properties.property import Predictor, Property, describe_exception
from deploycheck.properties.settings import ChangeSettings
from deploycheck.properties.transformations import TRANSFORMATIONS, find_transformation

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


class InvariantSettings(ChangeSettings):
    """``transformation``: its name or import path, or a mapping from it to its arguments; ``input``: of which input."""

    transformation: StrictStr | dict[StrictStr, Arguments]
    input: StrictStr | None = None
    _function: Callable[..., Any] | None = PrivateAttr(default=None)  # Pydantic evaluates it: without NumPy

    @field_validator("transformation")
    @classmethod
    def _check_transformation(cls, value: Any) -> Any:
        names = [value] if isinstance(value, str) else list(value)
        if len(names) != 1:
            raise mistake(f"expected one transformation, found {len(names)}")
        (name,) = names
        if ":" not in name and name not in TRANSFORMATIONS:
            raise mistake(f"unknown transformation {name!r}", did_you_mean(name, TRANSFORMATIONS))
        signature = signature_of(TRANSFORMATIONS[name], filled=1) if name in TRANSFORMATIONS else None
        for problem in (
            check_arguments(name, signature, {} if isinstance(value, str) else value[name]) if signature else ()
        ):
            raise mistake(problem.what, problem.hint)
        return value

    @property
    def named(self) -> tuple[str, Arguments]:
        """The transformation's name and its arguments."""
        if isinstance(self.transformation, str):
            return self.transformation, {}
        ((name, arguments),) = self.transformation.items()
        return name, arguments

    def with_code(self, load_object: Callable[[str], Any]) -> Self:
        """Return the settings with the function of the transformation."""
        name, _ = self.named
        copy = self.model_copy()
        copy._function = find_transformation(name, load_object)
        return copy

    def transform(self, array: np.ndarray) -> np.ndarray:
        """Return an input transformed, in its own dtype; raise ``DeploycheckError`` where that can't be done."""
        name, arguments = self.named
        function = self._function or TRANSFORMATIONS[name]
        try:
            transformed: Any = function(array, **arguments)
        except DeploycheckError:
            raise
        except Exception as error:  # the user's code, or arguments that it doesn't take, may raise anything
            raise DeploycheckError(
                f"the transformation {name} raised {describe_exception(error)}",
                hint=f"correct {name}, or its arguments {arguments}",
            ) from error
        if not isinstance(transformed, np.ndarray) or transformed.shape != array.shape:
            shape = list(getattr(transformed, "shape", ()))
            raise DeploycheckError(
                f"{name} returned {type(transformed).__name__} of the shape {shape}, expected an array of the "
                f"shape {list(array.shape)}"
            )
        return cast_like(transformed, array)


def _find_mistakes(settings: InvariantSettings, inputs: Mapping[str, Input]) -> Iterable[Mistake]:
    if settings.input is None and len(inputs) > 1:
        yield Mistake((), f"it doesn't say which of the inputs {', '.join(inputs)}", "add `input: NAME`", key=True)
    elif settings.input is not None and settings.input not in inputs:
        yield Mistake(("input",), f"the model has no input {settings.input!r}", did_you_mean(settings.input, inputs))


def _cases(domain: Domain, settings: InvariantSettings) -> SearchStrategy[Batch]:
    del settings
    return example_rows(domain).map(lambda row: Batch((row,), domain))


def _check(predictor: Predictor, batch: Batch, settings: InvariantSettings) -> str:
    inputs = batch.inputs
    name = settings.input or next(iter(inputs))
    after = predictor.predict({**inputs, name: settings.transform(inputs[name])})
    return changed(after, predictor.predict(inputs), settings.tolerance)


INVARIANT_TO = Property(
    name="invariant_to", check=_check, settings=InvariantSettings, cases=_cases, find_mistakes=_find_mistakes
)
