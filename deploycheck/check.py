"""One check of a plan, which becomes one pytest item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from deploycheck.language import Threshold
from deploycheck.language.spec import Slices
from deploycheck.ref import Ref

COMPLETES = "completes"
"""The check that every stage has: whether its steps end without an error."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """A threshold on a metric of a stage; without a ``threshold``, the check that the stage completes.

    ``id`` is the pytest item's; ``path`` says where the check is written in the spec. ``metric`` is as the spec writes
    it; for ``latency.p99`` the ``family`` is ``latency`` and the ``percentile`` 0.99.

    ``reads`` maps the parameters of the metric's function to the steps from which they are read. A threshold such as
    ``of baseline`` is relative: then ``against`` is the other variant, and ``compared`` maps the same parameters to the
    other variant's steps. ``property_name`` is the name of the property that must hold, if the check is about one.
    ``completes``  are the steps that must end without an error.
    """

    id: str
    stage: str
    section: str
    variant: str | None
    metric: str
    family: str = ""
    percentile: float | None = None
    threshold: Threshold | None = None
    against: str | None = None
    reads: Mapping[str, Ref] = field(default_factory=dict)
    compared: Mapping[str, Ref] = field(default_factory=dict)
    completes: tuple[Ref, ...] = ()
    severity: str = "error"
    slices: Slices | None = None
    baseline: str = "required"
    path: tuple[str | int, ...] = ("name",)
    property_name: str = ""

    @property
    def key(self) -> str:
        """How a waiver names the check: ``serve.latency.p99``."""
        return f"{self.section}.{self.metric}"

    @property
    def needs(self) -> tuple[Ref, ...]:
        """The steps whose artifacts the check reads, each once."""
        return tuple(dict.fromkeys((*self.completes, *self.reads.values(), *self.compared.values())))
