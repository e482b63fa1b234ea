"""``variant[V]``: the weights of a variant, compressed from those of the one that it is made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deploycheck.language.fields import Arguments, Section
from deploycheck.language.spec import Train
from deploycheck.ref import Ref, Source
from deploycheck.stages.methods import Describes, Method, is_given_trainer, settle
from deploycheck.steps.data import DATA, preprocess_of
from deploycheck.steps.found import found_by, overlaid_train, search_of
from deploycheck.steps.kind import BASELINE, TRAINED, Making, Metadata, StepKind, section_of
from deploycheck.steps.training import source_of

if TYPE_CHECKING:
    from deploycheck.check import Check
    from deploycheck.extensions import Extensions
    from deploycheck.language import Spec
    from deploycheck.language.recipes import Recipe
    from deploycheck.stages.data import Dataset
    from deploycheck.stages.trainer import Trainer
    from deploycheck.steps.trained import Trained


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
        from deploycheck.steps import trained

        settings: VariantSettings = making.settings
        making.progress(f"compress: {settings.variant} by {settings.method}")
        source = trained.read(making.inputs["weights"], making.extensions)
        method = making.extensions.method(settings.method)
        options = method.options.model_validate(settings.options)
        trainer = None
        if is_given_trainer(method, options):
            dataset = data.read(making.inputs["data"].path)
            trainer = trainer_of(source, dataset, settings.train, making, making.scratch)
        result = compress(source, (settings.method, settings.options), method, options, trainer)
        trained.write(result, making.out)
        remark = method.describe(source.model, result.model) if isinstance(method, Describes) else ""
        return {"remarks": [remark]} if remark else {}


def compress(
    source: Trained, written: tuple[str, Arguments], method: Method, options: Section, trainer: Trainer | None
) -> Trained:
    """Return what a method makes of a model; its config has the options with what the method has chosen."""
    from deploycheck.steps import trained

    name, plain = written
    settled = settle(method, source.model, options, trainer)
    model = method.compress(source.model, settled, trainer)
    chosen = plain if settled is options else settled.model_dump(mode="json", by_alias=True, exclude_none=True)
    return trained.compressed(source, model, name, chosen)


def trainer_of(source: Trained, dataset: Dataset, train: Train, making: Making, scratch: Path) -> Trainer:
    """Return what a method that trains is given to compress ``source``; trainings resume from ``scratch``.

    ``train`` is the spec's section; what a search found for it is laid over it.
    """
    from deploycheck.stages.recipe import recipe_of
    from deploycheck.stages.trainer import Trainer
    from deploycheck.steps import trained

    recipe = overlaid_train(train, found_by(making.inputs))
    return Trainer(
        examples=trained.prepared_examples(source.config, dataset, making.extensions),
        task=making.extensions.tasks[source.config.task],
        recipe=recipe_of(recipe) if recipe.trains else None,
        seed=source.config.seed,
        scratch=scratch,
        progress=making.progress,
        build=trained.builder(source.config, source.fitted, making.extensions),
    )


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
    """Return everything that building a variant uses by name, each as its kind (of ``Source``) and its name.

    What a search finds is known only after it: everything that it may use is used.
    """
    recipes = list(_recipes(spec, variant))
    models = [("models", path) for recipe in recipes for path in recipe.models]
    methods = [("methods", name) for recipe in recipes for name, _ in recipe.methods]
    steps = [("preprocessing", name) for name, _ in preprocess_of(spec)]
    own = [("models", spec.model.build)] if spec.model.build else []
    used = [*own, *models, *steps, ("tasks", spec.task), *methods]
    return tuple(dict.fromkeys(used))


def _recipes(spec: Spec, variant: str) -> Iterator[Recipe]:
    """Yield the recipes of a variant, after those of what it is made from."""
    if variant != TRAINED:
        section = section_of(spec, variant)
        for source in section.sources:
            yield from _recipes(spec, source)
        yield from section.recipes
