"""``variant_search[V]``: the weights of a variant made by the smallest of several recipes that meets thresholds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deploycheck.errors import DeploycheckError
from deploycheck.language.fields import Arguments, Section
from deploycheck.language.recipes import Recipe
from deploycheck.language.spec import Train
from deploycheck.ref import Ref, Source
from deploycheck.stages import recipe_search
from deploycheck.stages.recipe_search import MeasuredRecipe
from deploycheck.steps.data import DATA
from deploycheck.steps.found import search_of
from deploycheck.steps.kind import TRAINED, Making, Metadata, StepKind, runtime_of, section_of
from deploycheck.steps.recipes import VALIDATION, Bench, Workshop, role_of
from deploycheck.steps.training import source_of
from deploycheck.steps.variant import uses_of
from deploycheck.store import fingerprint
from deploycheck.store.disk import write_whole

if TYPE_CHECKING:
    from deploycheck.check import Check
    from deploycheck.extensions import Extensions
    from deploycheck.language import Spec

FRONTIER = "frontier.json"


class VariantSearchSettings(Section):
    """The recipes and the thresholds, and what trying a recipe takes.

    ``source`` is what recipes without a ``start`` are made from. ``before`` are the sources of the variants that are
    recipes as they are. ``metrics`` are the spec's own, as it writes them. ``model`` and ``runtime`` are those of
    the export, whose size counts.
    """

    variant: str
    source: str
    recipes: tuple[Recipe, ...]
    before: dict[str, str]
    within: dict[str, str]
    metrics: dict[str, Arguments]
    train: Train
    model: str
    runtime: str
    uses: tuple[tuple[str, str], ...]


class VariantSearchStep(StepKind):
    """Its artifact is that of a variant's step, with every recipe that was tried. It reads no test examples."""

    name = "variant_search"
    product = True
    isolated = True
    settings_type = VariantSearchSettings

    def stages(self, spec: Spec) -> Iterable[tuple[str, str | None, Ref]]:
        """Yield the compress stage of each variant that is searched for."""
        for variant, section in (spec.compress.variants if spec.compress else {}).items():
            if section.search:
                yield "compress", variant, Ref(self.name, (variant,))

    def needs(self, spec: Spec, ref: Ref, extensions: Extensions) -> Mapping[str, Ref]:
        """Return the data, the trained model, and the variants that recipes begin with."""
        del extensions
        named = {*section_of(spec, ref.of[0]).sources, *_before(spec, ref).values(), TRAINED}
        return {"data": DATA, **search_of(spec), **{role_of(name): source_of(spec, name) for name in sorted(named)}}

    def settings(self, spec: Spec, ref: Ref, checks: Sequence[Check]) -> VariantSearchSettings:
        """Return the search, and everything that trying a recipe uses."""
        del checks
        section = section_of(spec, ref.of[0])
        within = section.search.within if section.search else {}
        return VariantSearchSettings(
            variant=ref.of[0],
            source=section.source or TRAINED,
            recipes=section.recipes,
            before=_before(spec, ref),
            within=within,
            metrics={
                name: metric.model_dump(mode="json", by_alias=True)
                for name, metric in spec.metrics.items()
                if name in within
            },
            train=spec.train.model_copy(update={"expect": {}}),
            model=spec.name,
            runtime=runtime_of(spec, ref.of[0]),
            uses=uses_of(spec, ref.of[0]),
        )

    def sources(self, settings: VariantSearchSettings) -> Iterable[Source]:
        """Yield what the recipes use, the runtime, and the metrics."""
        yield from (Source(kind, name) for kind, name in settings.uses)
        yield Source("runtimes", settings.runtime)
        yield from (Source("metrics", name) for name in settings.within if name not in settings.metrics)
        yield from (Source("metrics", metric["use"]) for metric in settings.metrics.values())

    def make(self, making: Making) -> Metadata:
        """Try the recipes, and keep what the smallest that meets the thresholds makes."""
        from deploycheck.stages import data
        from deploycheck.steps import trained

        settings: VariantSearchSettings = making.settings
        dataset = data.read(making.inputs["data"].path, ("train", VALIDATION))
        workshop = Workshop(making, dataset)
        bench = Bench(making, dataset.splits[VALIDATION].labels, workshop.source(TRAINED))
        thresholds = ", ".join(f"{name} {text}" for name, text in settings.within.items())

        def measure(recipe: Recipe) -> MeasuredRecipe:
            with _named(recipe):
                return _measured(recipe, workshop, bench, making)

        tried = recipe_search.search(list(map(workshop.brief, settings.recipes)), measure, workshop.refined)
        best = recipe_search.best_of(tried, thresholds)
        result = workshop.made(best.recipe)
        trained.write(result, making.out)
        (making.out / FRONTIER).write_text(json.dumps([measured.plain() for measured in tried], indent=1) + "\n")
        by_hand = recipe_search.as_variants(workshop.whole(best.recipe), settings.variant, settings.source)
        said = workshop.described(best.recipe, result)
        return {"remarks": [*said, recipe_search.report(best, tried, thresholds, by_hand)]}


def _measured(recipe: Recipe, workshop: Workshop, bench: Bench, making: Making) -> MeasuredRecipe:
    """Make a model by a recipe and measure it, unless an earlier process did before it was killed."""
    file = making.scratch / f"recipe-{fingerprint(recipe.model_dump(mode='json'))}.json"
    title = f"search {making.settings.variant}: {recipe_search.describe(recipe)}"
    try:
        measured = MeasuredRecipe.from_plain(json.loads(file.read_bytes()))
        title += ": was done before"
    except (OSError, ValueError):  # it wasn't done; or a power cut left an empty file
        making.progress(title)
        measured = bench.measure(recipe, workshop.made(recipe))
        write_whole(file, json.dumps(measured.plain()))
    making.progress(f"{title}: {recipe_search.describe_reached(measured)}")
    return measured


@contextmanager
def _named(recipe: Recipe) -> Iterator[None]:
    """Have an error within the block say in which recipe it came."""
    name = f"recipe {recipe_search.describe(recipe)}"
    try:
        yield
    except DeploycheckError as error:
        raise DeploycheckError(f"{name}: {error.what}", where=error.where, hint=error.hint) from error
    except Exception as error:  # of the user's code
        error.add_note(f"in the {name}")
        raise


def _before(spec: Spec, ref: Ref) -> dict[str, str]:
    """Return the sources of the variants that are recipes as they are, unless they are searched for themselves."""
    variants = spec.compress.variants if spec.compress else {}
    starts = [recipe.start for recipe in section_of(spec, ref.of[0]).recipes if not recipe.methods]
    return {
        start: variants[start].source or TRAINED
        for start in starts
        if start and start != TRAINED and variants[start].method
    }
