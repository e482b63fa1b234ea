"""The search for an input that violates a property: Hypothesis draws, shrinks, and saves the smallest.

What an input gave once is remembered, so that a model that isn't deterministic can't lose a violation that was seen,
and no input is asked twice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import SkipTest

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis.database import DirectoryBasedExampleDatabase, ExampleDatabase
from hypothesis.errors import HypothesisException, Unsatisfiable

from deploycheck.errors import DeploycheckError
from deploycheck.properties.domain import Domain
from deploycheck.properties.property import NoAnswer, Predictor, Property
from deploycheck.properties.settings import PropertySettings

MOST_SHRINKS, MOST_SHRINK_S = 300, 30.0
"""How many further inputs are asked, after the first that violates a property, to find a smaller one, and how long."""


class _Violated(Exception):
    """Tells Hypothesis that an input violates the property."""


class _Broken(BaseException):
    """Ends the search at once, where Hypothesis would look for a smaller input that breaks the check."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search found.

    ``examples`` is how many different inputs were asked before one violated the property, with it; ``saved`` how many
    of them earlier runs had saved. Where none did, ``violation`` and ``counterexample`` are empty; ``replayed`` says
    whether an input of an earlier run violated it again. ``case`` is the counterexample itself.
    """

    examples: int
    saved: int
    violation: str = ""
    counterexample: str = ""
    replayed: bool = False
    case: Any = None


class KeyedDatabase(ExampleDatabase):
    """Hypothesis's database in ``folder`` under a key of our own: Hypothesis's is a digest of the code that is tested.

    ``saved`` is how many inputs are saved under it.
    """

    def __init__(self, folder: Path, key: str) -> None:
        super().__init__()
        self.files = DirectoryBasedExampleDatabase(folder)
        self.key = key.encode()
        self.saved = len(list(self.files.fetch(self.key)))

    def fetch(self, key: bytes) -> Iterable[bytes]:
        """Yield what is saved."""
        return self.files.fetch(self._own(key))

    def save(self, key: bytes, value: bytes) -> None:
        """Save an input."""
        self.files.save(self._own(key), value)

    def delete(self, key: bytes, value: bytes) -> None:
        """Delete an input that violates nothing any more."""
        self.files.delete(self._own(key), value)

    def _own(self, key: bytes) -> bytes:
        corpora = (b".secondary", b".pareto")
        return self.key + next((corpus for corpus in corpora if key.endswith(corpus)), b"")


@dataclass
class _Tries:
    """What was asked so far, by the case's ``repr``: each with the violation, empty where the property held."""

    known: dict[str, str] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    before: int = 0
    ends: float = math.inf
    last: tuple[str, Any] | None = None

    def violation(self, property: Property, predictor: Predictor, case: Any, settings: PropertySettings) -> str:
        name = repr(case)
        if name not in self.known:
            if self.before and (len(self.known) - self.before >= MOST_SHRINKS or self.clock() > self.ends):
                return ""
            self.known[name] = _check(property, predictor, case, settings)
        violation = self.known[name]
        if violation and not self.before:
            self.before, self.ends = len(self.known), self.clock() + MOST_SHRINK_S
        if violation:
            self.last = (violation, case)
        return violation


def search(
    property: Property,
    predictor: Predictor,
    domain: Domain,
    settings: PropertySettings,
    *,
    saved: Path,
    key: str,
    clock: Callable[[], float] = time.monotonic,
) -> Found:
    """Look for an input that violates a property: first among those that earlier runs saved under ``key``, then others.

    The smallest that is found is saved. What a user's check raises, other than ``AssertionError``, is raised.
    Raises ``DeploycheckError`` where no input can be drawn, or the check rejects all of them.
    """
    tries = _Tries(clock=clock)
    database = KeyedDatabase(saved, key)

    def look(case: Any) -> None:
        try:
            violation = tries.violation(property, predictor, case, settings)
        except HypothesisException:  # the check rejects the case, by ``assume``
            raise
        except Exception as error:
            raise _Broken(error) from error
        if violation:
            raise _Violated

    def run(phase: Phase) -> None:
        limits = hypothesis.settings(
            max_examples=settings.examples,
            database=database,
            derandomize=False,
            phases=(phase, Phase.shrink),
            deadline=None,  # a model may be slow, and a server has its own deadline
            suppress_health_check=list(HealthCheck),  # they are about tests that people write
            report_multiple_bugs=False,
            verbosity=Verbosity.quiet,
            print_blob=False,
        )
        seeded = hypothesis.seed(settings.seed)(hypothesis.given(property.cases(domain, settings))(look))
        try:
            limits(seeded)()  # over the seed, which would leave the database out
        except (_Violated, SkipTest, Unsatisfiable):  # the last two: no input was drawn, or the check rejected all
            pass
        except _Broken as broken:
            raise broken.error from None

    run(Phase.reuse)
    is_replayed = tries.last is not None
    if not is_replayed:
        run(Phase.generate)
    if not tries.known:
        raise DeploycheckError(
            "no input could be tried: the check rejects each that is drawn, or none can be drawn",
            hint="let the property draw other cases, or reject fewer of them by `assume`",
        )
    if tries.last is None:
        return Found(examples=len(tries.known), saved=database.saved)
    violation, case = tries.last
    return Found(
        examples=tries.before,
        saved=database.saved,
        violation=violation,
        counterexample=str(case),
        replayed=is_replayed,
        case=case,
    )


def _check(property: Property, predictor: Predictor, case: Any, settings: PropertySettings) -> str:
    try:
        return property.check(predictor, case, settings)
    except NoAnswer as error:
        return str(error)
    except AssertionError as error:
        return next(iter(str(error).splitlines()), "an assertion failed")
