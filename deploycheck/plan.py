"""A spec as a graph: the steps that make artifacts, and the checks that stand on them. Pure.

A *stage* is what a user sees (``data``, ``train``, ``compress[int8]``, ``serve[int8]``); a *step* is one node of
work behind it, which makes one artifact:

==================  =============================================================================
``data``            the splits and the fitted preprocessing
``training``        every seed's run and the deployed weights
``model[V]``        variant V as an exported artifact: what is served and promoted
``outputs[V]``      what that artifact answers on the test split, and what the model in memory does
``load[V]``         what serving V under load was like; measured anew in every run
==================  =============================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploycheck.language.spec import Spec
    from deploycheck.language.threshold import Threshold

TRAINED = "trained"
COMPLETES = "completes"
"""The check every stage has: that its steps ran to their end."""


@dataclass(frozen=True)
class Step:
    """One node of work. ``needs`` names the steps whose artifacts it is made from."""

    kind: str
    variant: str | None
    needs: tuple[str, ...]

    @property
    def name(self) -> str:
        """The step's name, unique in its plan: ``model[int8]``."""
        return named(self.kind, self.variant)


@dataclass(frozen=True)
class Check:
    """One item: a threshold on a metric of a stage, or that the stage completes (``threshold`` None).

    ``needs`` names the steps it looks at; ``percentile`` is set for a family such as ``latency.p99``.
    """

    id: str
    stage: str
    kind: str
    variant: str | None
    metric: str
    needs: tuple[str, ...]
    threshold: Threshold | None = None
    percentile: float | None = None
    severity: str = "error"
    waiver: str | None = None


@dataclass(frozen=True)
class Plan:
    """What a spec asks for: ``steps`` by name, ``checks`` in the order they run, the variants to choose from."""

    spec: Spec
    id: str
    steps: Mapping[str, Step]
    checks: tuple[Check, ...]
    candidates: tuple[str, ...]


def named(kind: str, variant: str | None) -> str:
    """Return ``kind`` or ``kind[variant]``."""
    return f"{kind}[{variant}]" if variant else kind
