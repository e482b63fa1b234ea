"""What a property is: something that must hold of a model's outputs for every input, not for the test split alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from deploycheck.language.errors import Mistake
from deploycheck.language.spec import Input
from deploycheck.properties.domain import Domain, batches
from deploycheck.properties.settings import PropertySettings

if TYPE_CHECKING:
    import numpy as np
    from hypothesis.strategies import SearchStrategy

Inputs = Mapping[str, "np.ndarray"]
Outputs = Mapping[str, "np.ndarray"]


class NoAnswer(Exception):
    """The model gave no outputs for an input that it should take; the text says what it did."""


def describe_exception(error: Exception) -> str:
    """Return an exception's name and the first line of its text: ``KeyError: 'logits'``."""
    return ": ".join(filter(None, (type(error).__name__, next(iter(str(error).splitlines()), ""))))


class Predictor(Protocol):
    """A model that can be asked: the exported one in memory, or a running server."""

    def predict(self, inputs: Inputs) -> Outputs:
        """Return each output by name, ``[batch, ...]``, for inputs ``[batch, ...]``; raise ``NoAnswer`` if none."""
        ...


def no_mistakes(settings: Any, inputs: Mapping[str, Input]) -> Iterable[Mistake]:
    """Return no mistakes: for a property whose settings name no part of the model."""
    del settings, inputs
    return ()


@dataclass(frozen=True, kw_only=True)
class Property:
    """One property: its name in a spec, its settings, what it is tried on, and how it is checked.

    ``check(predictor, case, settings)`` returns one sentence that says how the property is violated, or an empty text.
    A failed ``assert`` in it is a violation too. ``cases(domain, settings)`` is the Hypothesis strategy of what it is
    tried on; by default ``Batch``, whose ``inputs`` can be predicted. A case has a ``repr`` that says all of it, and a
    ``str`` for people; its ``inputs``, if it has any, are saved as arrays where it violates the property. ``stages``
    are the sections that may name it; in ``serve`` the predictor is a running server.
    ``find_mistakes(settings, inputs)`` returns what is wrong with settings for a model with these inputs.
    """

    name: str
    check: Callable[[Any, Any, Any], str]
    settings: type[PropertySettings] = PropertySettings
    cases: Callable[[Domain, Any], SearchStrategy[Any]] = batches
    stages: frozenset[str] = frozenset({"compress", "serve"})
    find_mistakes: Callable[[Any, Mapping[str, Input]], Iterable[Mistake]] = no_mistakes
