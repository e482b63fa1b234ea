"""``serve_properties[V]``: a search for inputs that violate what must hold of the server of V."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from deploycheck.ref import Ref, Source
from deploycheck.steps.data import DATA
from deploycheck.steps.kind import BASELINE, Making, Metadata, StepKind, Subject
from deploycheck.steps.outputs import exported
from deploycheck.steps.properties import (
    PropertiesSettings,
    domain_of,
    read_results,
    search_all,
    settings_of,
    sources_of,
)

if TYPE_CHECKING:
    from deploycheck.check import Check
    from deploycheck.extensions import Extensions
    from deploycheck.language import Spec


class ServePropertiesStep(StepKind):
    """One server is started for all properties of a variant. It is done in each run, as under ``compress``."""

    name = "serve_properties"
    isolated = True
    repeated = True
    settings_type = PropertiesSettings
    subjects: Mapping[str, Subject] = {"serve_properties": Subject(read_results, per_variant=True)}

    def ref_for(self, variant: str | None) -> Ref | None:
        """Return the step for a variant; the baseline has none."""
        return Ref(self.name, (variant,)) if variant not in (None, BASELINE) else None

    def needs(self, spec: Spec, ref: Ref, extensions: Extensions) -> Mapping[str, Ref]:
        """Return the data and the exported model."""
        del spec, extensions
        return {"data": DATA, "model": exported(ref.of[0])}

    def settings(self, spec: Spec, ref: Ref, checks: Sequence[Check]) -> PropertiesSettings:
        """Return the properties under ``serve``."""
        del checks
        return settings_of(spec, ref, spec.serve.properties if spec.serve else ())

    def sources(self, settings: PropertiesSettings) -> Iterable[Source]:
        """Yield the runtime, and the properties."""
        return sources_of(settings)

    def make(self, making: Making) -> Metadata:
        """Serve the artifact, and search for a counterexample of each property."""
        from deploycheck.properties.served import serving
        from deploycheck.serving.bench import model_name
        from deploycheck.serving.process import ServerProcess, batching_options

        model = making.inputs["model"]
        options = batching_options(making.settings.batching)
        log = making.scratch / "server.log"
        start = partial(ServerProcess, model.path, options, log, making.extensions.files)
        with serving(start, model_name(model)) as served:
            return search_all(making, served, domain_of(making))
