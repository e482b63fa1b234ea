"""``variant[V]``: the weights of a variant, compressed from those of the one that it is made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from deploycheck.language.fields import Arguments, Section
from deploycheck.language.spec import Train
from deploycheck.ref import Ref, Source
from deploycheck.stages.methods import Describes, is_given_trainer, settle
from deploycheck.steps.data import DATA, preprocess_of
from deploycheck.steps.found import found_by, overlaid_train, search_of
from deploycheck.steps.kind import BASELINE, TRAINED, Making, Metadata, StepKind, section_of
from deploycheck.steps.training import source_of

if TYPE_CHECKING:
    from deploycheck.check import Check
    from deploycheck.extensions import Extensions
    from deploycheck.language import Spec


class VariantSettings(Section):
    """The method with its options; ``train`` is the recipe of a method that trains."""

    variant: str
    method: str
    options: Arguments
    train: Train
    uses: tuple[tuple[str, str], ...]


class VariantStep(StepKind):
    """Its artifact is a trained model (``steps/trained.py``) with one more method in its config."""

    name = "variant"
    product = True
    isolated = True
    settings_type = VariantSettings

    def ref_for(self, variant: str | None) -> Ref | None:
        """Return the step that makes a variant; the trained model and the baseline have none."""
        return None if variant in (None, TRAINED, BASELINE) else Ref(self.name, (str(variant),))

    def stages(self, spec: Spec) -> Iterable[tuple[str, str | None, Ref]]:
        """Yield the compress stage of each variant that a method makes."""
        for variant, section in spec.compress.variants.items() if spec.compress else ():
            if section.method:
                yield "compress", variant, Ref(self.name, (variant,))

    def needs(self, spec: Spec, ref: Ref, extensions: Extensions) -> Mapping[str, Ref]:
        """Return the step that has its weights, and the data for a method that trains or may train."""
        name, options = _method(spec, ref)
        source = {"weights": source_of(spec, section_of(spec, ref.of[0]).source or TRAINED)}
        return {**source, "data": DATA, **search_of(spec)} if _trains(name, options, extensions) else source

    def settings(self, spec: Spec, ref: Ref, checks: Sequence[Check]) -> VariantSettings:
        """Return the method that the spec names, and everything that putting the model together uses."""
        del checks
        name, options = _method(spec, ref)
        return VariantSettings(
            variant=ref.of[0],
            method=name,
            options=options,
            train=spec.train.model_copy(update={"expect": {}}),
            uses=uses_of(spec, ref.of[0]),
        )

    def sources(self, settings: VariantSettings) -> Iterable[Source]:
        """Yield the code of the models, the preprocessing steps, the task and the methods."""
        yield from (Source(kind, name) for kind, name in settings.uses)

    def make(self, making: Making) -> Metadata:
        """Compress the variant that this one is made from."""
        from deploycheck.stages import data
        from deploycheck.stages.recipe import recipe_of
        from deploycheck.stages.trainer import Trainer
        from deploycheck.steps import trained

        settings: VariantSettings = making.settings
        recipe = overlaid_train(settings.train, found_by(making.inputs))
        making.progress(f"compress: {settings.variant} by {settings.method}")
        source = trained.read(making.inputs["weights"], making.extensions)
        method = making.extensions.method(settings.method)
        options = method.options.model_validate(settings.options)
        trainer = None
        if is_given_trainer(method, options):
            dataset = data.read(making.inputs["data"].path)
            trainer = Trainer(
                examples=trained.prepared_examples(source.config, dataset, making.extensions),
                task=making.extensions.tasks[source.config.task],
                recipe=recipe_of(recipe) if recipe.trains else None,
                seed=source.config.seed,
                scratch=making.scratch,
                progress=making.progress,
                build=trained.builder(source.config, source.fitted, making.extensions),
            )
        settled = settle(method, source.model, options, trainer)
        model = method.compress(source.model, settled, trainer)
        chosen = settled.model_dump(mode="json", by_alias=True, exclude_none=True) if settled is not options else None
        trained.write(trained.compressed(source, model, settings.method, chosen or settings.options), making.out)
        remark = method.describe(source.model, model) if isinstance(method, Describes) else ""
        return {"remarks": [remark]} if remark else {}


def _method(spec: Spec, ref: Ref) -> tuple[str, Arguments]:
    method = section_of(spec, ref.of[0]).method
    if method is None:
        raise KeyError(ref)
    return method


def _trains(name: str, options: Arguments, extensions: Extensions) -> bool:
    """Whether a method may train. What an import path names isn't known before it is imported: it may."""
    method = extensions.methods.get(name)
    return method is None or is_given_trainer(method, method.options.model_validate(options))


def uses_of(spec: Spec, variant: str) -> tuple[tuple[str, str], ...]:
    """Return everything that building a variant uses by name, each as its kind (of ``Source``) and its name."""
    models, methods = [("models", spec.model.build)], []
    at = variant
    while at != TRAINED:
        section = section_of(spec, at)
        models += [("models", path) for path in section.models]
        methods += [("methods", section.method[0])] if section.method else []
        at = section.source or TRAINED
    steps = [("preprocessing", name) for name, _ in preprocess_of(spec)]
    return (*models, *steps, ("tasks", spec.task), *reversed(methods))
