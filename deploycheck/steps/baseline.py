"""``baseline``: the artifact that the registry's alias points at now. It is found, not made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deploycheck.errors import DeploycheckError, located
from deploycheck.extensions import unknown
from deploycheck.language.fields import Section
from deploycheck.ref import Ref
from deploycheck.steps.kind import BASELINE, Making, Metadata, NoBaseline, StepKind, Subject
from deploycheck.steps.model import artifact_itself
from deploycheck.store import Artifact, CorruptArtifact, open_artifact

if TYPE_CHECKING:
    from deploycheck.check import Check
    from deploycheck.extensions import Extensions
    from deploycheck.language import Spec
    from deploycheck.registry import Registry, Version

DEFAULT_SCHEME, DEFAULT_LOCATION = "sqlite", "registry.db"


class BaselineSettings(Section):
    """Where the model is promoted."""

    registry: str | None
    model: str
    alias: str


class BaselineStep(StepKind):
    """It finds an artifact instead of making one."""

    name = BASELINE
    product = True
    settings_type = BaselineSettings
    subjects: Mapping[str, Subject] = {"artifact": Subject(artifact_itself, per_variant=True)}

    def ref_for(self, variant: str | None) -> Ref | None:
        """Return the one step, for the baseline alone."""
        return Ref(self.name) if variant == BASELINE else None

    def settings(self, spec: Spec, ref: Ref, checks: Sequence[Check]) -> BaselineSettings:
        """Return where the spec promotes to."""
        del ref, checks
        target = spec.promote
        if target is None:
            raise DeploycheckError("there is no baseline without a `promote`")
        return BaselineSettings(registry=target.registry, model=target.model, alias=target.to)

    def make(self, making: Making) -> Metadata:
        """Never called: see ``find``."""
        raise NotImplementedError

    def look_up(self, settings: BaselineSettings, extensions: Extensions, cache: Path) -> Version | None:
        """Return the version that is promoted now, or None."""
        with located("promote.registry"):
            registry = open_registry(settings.registry, extensions, cache)
        return registry.current(settings.model, settings.alias)

    def find(self, settings: BaselineSettings, version: Version | None) -> Artifact:
        """Return the artifact of the version that is promoted; raise ``NoBaseline`` where there is none."""
        if version is None:
            target = f"{settings.model}@{settings.alias}"
            raise NoBaseline(f"nothing is promoted as {target} yet: there is no baseline")
        artifact = open_artifact(version.path)
        if artifact.digest != version.digest:
            hint = "verify the registry with `deploycheck registry verify`, and restore the folder from a copy"
            what = f"it is {artifact.digest}, the registry says {version.digest}"
            raise CorruptArtifact(what, where=str(version.path), hint=hint)
        return artifact


def open_registry(url: str | None, extensions: Extensions, cache: Path) -> Registry:
    """Open the registry at ``SCHEME:LOCATION``, inside the project; by default the one in the cache folder."""
    scheme, _, location = (url or f"{DEFAULT_SCHEME}:{DEFAULT_LOCATION}").partition(":")
    if scheme not in extensions.registries:
        raise unknown("registries", scheme, extensions.registries)
    return extensions.registries[scheme].open(location, extensions.root if url else cache)
