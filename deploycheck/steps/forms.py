"""``forms``: which variants can't be made of the model, whatever its weights are. Nothing is trained for it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from deploycheck.errors import DeploycheckError
from deploycheck.language.fields import Arguments, Section
from deploycheck.ref import Ref, Source
from deploycheck.stages.methods import Checks, Open
from deploycheck.steps.data import DATA
from deploycheck.steps.initial import InitialModel, initial_model
from deploycheck.steps.kind import TRAINED, Making, Metadata, StepKind
from deploycheck.steps.variant import uses_of

if TYPE_CHECKING:
    from deploycheck.check import Check
    from deploycheck.extensions import Extensions
    from deploycheck.language import Spec
    from deploycheck.language.variants import Variant
    from deploycheck.store import Artifact

FORMS = Ref("forms")
_FILE = "misfits.json"


class Derivation(Section):
    """How a variant is made: from which other, and by which method with its options."""

    variant: str
    source: str
    method: str
    options: Arguments


class FormsSettings(InitialModel):
    """The model, and how each variant is made, each after its source."""

    seed: int
    derivations: tuple[Derivation, ...]
    uses: tuple[tuple[str, str], ...]


class Misfit(Section):
    """A variant that its method can't make, and why."""

    variant: str
    method: str
    what: str
    hint: str


class FormsStep(StepKind):
    """Only ``deploycheck lint`` needs it; no check does."""

    name = "forms"
    isolated = True
    settings_type = FormsSettings

    def needs(self, spec: Spec, ref: Ref, extensions: Extensions) -> Mapping[str, Ref]:
        """Return the data, which has what the preprocessing learned."""
        del spec, ref, extensions
        return {"data": DATA}

    def settings(self, spec: Spec, ref: Ref, checks: Sequence[Check]) -> FormsSettings:
        """Return the model and its variants."""
        del ref, checks
        variants = spec.compress.variants if spec.compress else {}
        known = {name: it for name, it in variants.items() if not _follows_search(variants, name)}
        derivations, left = list[Derivation](), {name: it.method for name, it in known.items() if it.method}
        while left:
            made = {TRAINED, *(derivation.variant for derivation in derivations)}
            for name in [name for name in left if _source(variants, name) in made]:
                method, options = left.pop(name)
                derivations.append(
                    Derivation(variant=name, source=_source(variants, name), method=method, options=options)
                )
        uses = dict.fromkeys(each for name in known for each in uses_of(spec, name))
        return FormsSettings(
            **initial_model(spec), seed=spec.train.seeds[0], derivations=tuple(derivations), uses=tuple(uses)
        )

    def sources(self, settings: FormsSettings) -> Iterable[Source]:
        """Yield the code of the models, the preprocessing steps, the task and the methods."""
        yield from settings.sources()
        yield from (Source(kind, name) for kind, name in settings.uses)

    def make(self, making: Making) -> Metadata:
        """Build the model, and put together the form of each variant, from shapes alone."""
        from deploycheck.stages import data
        from deploycheck.steps import trained

        settings: FormsSettings = making.settings
        config, extensions = settings.config(settings.seed), making.extensions
        fitted = data.read(making.inputs["data"].path).fitted
        forms = {TRAINED: trained.form_of(config, fitted, extensions)}
        build = trained.builder(config, fitted, extensions)
        misfits = []
        for derivation in settings.derivations:
            if derivation.source not in forms:
                continue  # which is not made either
            method = extensions.method(derivation.method)
            try:
                options = method.options.model_validate(derivation.options)
                if isinstance(method, Checks):
                    method.check(forms[derivation.source], options, build)
                forms[derivation.variant] = method.structure(forms[derivation.source], options, build).form
            except Open:
                pass
            except DeploycheckError as error:
                misfits.append(
                    Misfit(variant=derivation.variant, method=derivation.method, what=error.what, hint=error.hint)
                )
        content = [misfit.model_dump() for misfit in misfits]
        (making.out / _FILE).write_text(json.dumps(content, indent=1) + "\n")
        return {}


def _follows_search(variants: Mapping[str, Variant], name: str) -> bool:
    """Whether a variant's form is known only when a search has found it, or what it is made from."""
    while name != TRAINED:
        if variants[name].search:
            return True
        name = variants[name].source or TRAINED
    return False


def _source(variants: Mapping[str, Variant], name: str) -> str:
    """Return what a variant's method is given: one that only names another runtime has the model of its source."""
    source = variants[name].source or TRAINED
    while source != TRAINED and variants[source].method is None:
        source = variants[source].source or TRAINED
    return source


def read_misfits(artifact: Artifact) -> Iterator[Misfit]:
    """Yield the variants that can't be made."""
    yield from map(Misfit.model_validate, json.loads(artifact.file(_FILE).read_bytes()))
