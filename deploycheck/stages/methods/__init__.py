"""Compression methods, one file each: what a spec names under a variant.

A method makes a trained model smaller or faster (``compress``), and says what form the result has (``structure``), so
that the model can be built again from its stored weights. Both are given the method's own options, validated by the
class in ``options``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from deploycheck.language.fields import Section

if TYPE_CHECKING:
    from deploycheck.stages.model import Model
    from deploycheck.stages.trainer import Trainer

Builder = Callable[[str | None, Mapping[str, Any]], "Model"]
"""``build(import_path, arguments)`` returns another model, freshly initialised.

Without an import path it is the spec's own, and the arguments are those that differ from the spec's.
"""


@runtime_checkable
class Method(Protocol):
    """A compression method. ``trains`` says whether ``compress`` is given a ``Trainer``.

    Where that depends on the options, their class has a property ``trains`` too: either is enough.
    """

    name: str
    trains: bool

    @property
    def options(self) -> type[Section]:
        """The class of its options."""
        ...

    def compress(self, source: Model, options: Any, trainer: Trainer | None) -> Model:
        """Return the compressed model; ``source`` isn't changed."""
        ...

    def structure(self, source: Model, options: Any, build: Builder) -> Model:
        """Return the form (see ``Model``) of what ``compress`` makes of a model with the form ``source``."""
        ...


@runtime_checkable
class Describes(Protocol):
    """A method that also says what it did, for the report."""

    def describe(self, source: Model, result: Model) -> str:
        """Return, in words, what ``compress`` made of ``source``; empty where there is nothing to say."""
        ...


@runtime_checkable
class Refines(Protocol):
    """A method whose options can be made finer, so that a search has more to try than what a spec lists."""

    def refine(self, source: Model, options: Any, trainer: Trainer) -> Sequence[Section]:
        """Return options that lose less and less of ``source``, each with more bytes than those before it.

        They are judged by the validation examples.
        """
        ...


@runtime_checkable
class Chooses(Protocol):
    """A method whose options may leave something to be chosen by the weights, or on examples."""

    def choose(self, source: Model, options: Any, trainer: Trainer | None) -> Section:
        """Return the options with the choice in them; ``compress`` and ``structure`` are given these.

        ``structure`` raises ``Open`` for options that leave a choice on which the form depends.
        """
        ...


class Open(Exception):
    """The form of a variant depends on a choice that hasn't been made yet."""


@runtime_checkable
class Checks(Protocol):
    """A method that can say before the training that its options don't fit a model."""

    def check(self, source: Model, options: Any, build: Builder) -> None:
        """Raise ``DeploycheckError`` where no model with the form ``source`` can be compressed."""
        ...


def settle(method: Method, source: Model, options: Section, trainer: Trainer | None) -> Section:
    """Return a method's options as they are recorded with the model: what they left open is chosen."""
    return method.choose(source, options, trainer) if isinstance(method, Chooses) else options


def is_given_trainer(method: Method, options: Section) -> bool:
    """Whether a method is given a ``Trainer`` for these options."""
    return method.trains or bool(getattr(options, "trains", False))
