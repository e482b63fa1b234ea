"""What a kind of step is: its place in the graph, its settings, its work, and what can be read from its artifact."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from deploycheck.language.fields import Section
from deploycheck.language.spec import Serve
from deploycheck.ref import Ref, Source
from deploycheck.store import Artifact

if TYPE_CHECKING:
    from deploycheck.check import Check
    from deploycheck.extensions import Extensions
    from deploycheck.language import Spec
    from deploycheck.language.variants import Variant
    from deploycheck.registry import Version

TRAINED, BASELINE = "trained", "baseline"
"""The variant before compression, and the one that is promoted now."""

Metadata = Mapping[str, Any]
"""How an artifact was made, as JSON. No digest covers it. ``remarks``, a list, are shown where its stage completes."""


class NoBaseline(Exception):
    """A check compares with what is promoted now, and nothing is promoted; the text says so."""


@dataclass(frozen=True, kw_only=True)
class Making:
    """All that a step's work is given.

    ``inputs`` are the artifacts it is made from, by their role. Files written into ``out`` become the artifact;
    ``scratch`` stays when the process is killed, for work that can be resumed. ``kept`` stays for all later runs; what
    is in it decides no result, only where a search begins. ``progress`` shows one line.
    """

    settings: Any
    inputs: Mapping[str, Artifact]
    out: Path
    scratch: Path
    kept: Path
    progress: Callable[[str], None]
    extensions: Extensions


@dataclass(frozen=True)
class Subject:
    """Something that a metric's function can have as a parameter, read from a step's artifact.

    ``read(artifact, variant)`` reads it. ``per_example`` says that it is an array over the test examples, which slices
    can cut; ``per_variant`` that each variant and the baseline has its own, so that two can be compared.
    """

    read: Callable[[Artifact, str | None], Any]
    per_example: bool = False
    per_variant: bool = False


class StepKind(Protocol):
    """One kind of step. The planner and the runner know this interface, and none of the kinds.

    ``name``, ``settings_type``, ``settings`` and ``make`` are each kind's own; the rest has a default that fits an
    ordinary step. A ``repeated`` step is done in each run. So is a ``timed`` one, which has the machine to itself. A
    ``product`` is what the checks are about: weights and exports. A run that promotes takes only products from the
    store, because its verdicts are based on the other steps. One that is ``isolated`` is done in a process of its own,
    because it runs the user's code or what may crash. One with ``pairs`` measures two variants together. ``subjects``
    are what a metric's function can be given of its artifact.
    """

    name: str
    repeated: bool = False
    timed: bool = False
    product: bool = False
    isolated: bool = False
    pairs: bool = False
    subjects: Mapping[str, Subject] = MappingProxyType({})

    @property
    def settings_type(self) -> type[Section]:
        """The type that ``settings`` returns: plain data that JSON can carry."""
        ...

    def ref_for(self, variant: str | None) -> Ref | None:
        """Return the step of this kind that is about a variant; None, the default, where the kind has none for it."""
        del variant
        return None

    def stages(self, spec: Spec) -> Iterable[tuple[str, str | None, Ref]]:
        """Yield the stages that complete only when a step of this kind does: section, variant (if shown), step.

        By default there are none: such a step is done where another step or a check needs it.
        """
        del spec
        return ()

    def needs(self, spec: Spec, ref: Ref, extensions: Extensions) -> Mapping[str, Ref]:
        """Return the steps that a step is made from, by their role in it; by default none."""
        del spec, ref, extensions
        return {}

    def settings(self, spec: Spec, ref: Ref, checks: Sequence[Check]) -> Section:
        """Return all that ``make`` may know of the spec; ``checks`` are those that read this step."""
        ...

    def sources(self, settings: Any) -> Iterable[Source]:
        """Yield what the step uses by name: installed extensions, or the user's own by import path; by default none."""
        del settings
        return ()

    def make(self, making: Making) -> Metadata:
        """Do the work: write the artifact's files into ``making.out`` and return how they were made."""
        ...


def is_repeated(kind: StepKind) -> bool:
    """Whether a step is done in each run, and its artifact not used by another one."""
    return kind.repeated or kind.timed


@runtime_checkable
class FoundElsewhere(Protocol):
    """A kind of step whose artifact is not made: each run finds it, in a registry."""

    def settings(self, spec: Spec, ref: Ref, checks: Sequence[Check]) -> Section:
        """Return where to find it."""
        ...

    def look_up(self, settings: Any, extensions: Extensions, cache: Path) -> Version | None:
        """Return the version that is there now, or None; a run looks once, and compares with what it saw then."""
        ...

    def find(self, settings: Any, version: Version | None) -> Artifact:
        """Return the artifact of a version that was looked up; raise ``NoBaseline`` where there was none."""
        ...


def made_variants(spec: Spec) -> tuple[str, ...]:
    """Return the variants of a spec, the trained model first."""
    return (TRAINED, *(spec.compress.variants if spec.compress else ()))


def section_of(spec: Spec, variant: str) -> Variant:
    """Return how a variant is made; raise ``KeyError`` for one that the section ``compress`` doesn't have."""
    if spec.compress is None:
        raise KeyError(variant)
    return spec.compress.variants[variant]


def runtime_of(spec: Spec, variant: str) -> str:
    """Return what executes a variant: its own runtime, or that of the section ``serve``."""
    own = None if variant in (TRAINED, BASELINE) else section_of(spec, variant).runtime
    return own or (spec.serve or Serve()).runtime
