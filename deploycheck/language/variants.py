"""The ``compress`` section: variants of the model, each made by one compression method, or by a search for the best."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import Field, PlainValidator, StrictStr, ValidationInfo, model_validator

from deploycheck.language.errors import Mistake, SpecPath, did_you_mean
from deploycheck.language.fields import ImportPath, Installed, Name, Section, mistake, refuse
from deploycheck.language.methods import NOTHING, Method, MethodForm, models_of, with_methods
from deploycheck.language.properties import WrittenProperty
from deploycheck.language.recipes import Recipe, RecipeSearch
from deploycheck.language.spec import Expectations
from deploycheck.language.vocabulary import Vocabulary

TRAINED, BASELINE = "trained", "baseline"
RESERVED: Mapping[str, str] = {TRAINED: "the model before compression", BASELINE: "what is promoted now"}
"""Names that no variant can have, and what they mean."""


class Variant(Section):
    """One deployable form: made from the trained model, or from the variant ``source``.

    It is made by one ``method``, or by the recipe that a ``search`` finds. Without either, it has the weights of its
    source, for another runtime. ``models`` are the import paths of the models that the method's options name.
    ``runtime`` is None where it is that of the section ``serve``.
    """

    source: StrictStr | None = None
    method: Method | None = None
    search: RecipeSearch | None = None
    runtime: StrictStr | None = None
    models: tuple[ImportPath, ...] = ()
    expect: Expectations = Field(default={})

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The recipes of which one makes it."""
        if self.search:
            return self.search.over
        return (Recipe(methods=(self.method,) if self.method else (), models=self.models),)

    @property
    def sources(self) -> tuple[str, ...]:
        """The variants that it is made from, or may be: ``trained`` too, where one of them is that model."""
        return tuple(dict.fromkeys(recipe.start or self.source or TRAINED for recipe in self.recipes))


class VariantForm(MethodForm):
    """One deployable form: made from the trained model, or ``from`` another variant, by one method or a search.

    It may be for a runtime of its own. It is the form in which specs write a ``Variant``.
    """

    source: StrictStr | None = Field(default=None, alias="from")
    search: RecipeSearch | None = Field(
        default=None, description="Instead of a method: the smallest of these recipes that meets thresholds"
    )
    runtime: Annotated[StrictStr, Installed("runtime")] | None = Field(
        default=None, description="What executes this variant; the `runtime` of `serve` if left out"
    )
    expect: Expectations = Field(default={})

    def variant(self, vocabulary: Vocabulary) -> Variant:
        """Return the variant that is written; refuse one made in several ways, or in none and without a runtime."""
        methods = self.methods()
        ways = [name for name, _ in methods] + (["search"] if self.search else [])
        if len(ways) > 1:
            hint = "build one variant `from` another to chain methods"
            raise mistake(f"a variant has one method, found {', '.join(ways)}", hint, key=True)
        if not ways and not self.runtime:
            raise mistake("a variant has one method, found none", "add a method, or a `runtime` of its own", key=True)
        return Variant(
            source=self.source,
            method=methods[0] if methods else None,
            search=self.search,
            runtime=self.runtime,
            models=tuple(path for method in methods for path in models_of(method, vocabulary)),
            expect=self.expect,
        )


def _read_variant(value: Any, info: ValidationInfo) -> Variant:
    if isinstance(value, Variant):
        return value
    vocabulary: Vocabulary = info.context or NOTHING
    form: type[VariantForm] = with_methods(VariantForm, vocabulary)
    return form.model_validate(value, context=info.context).variant(vocabulary)


WrittenVariant = Annotated[Variant, PlainValidator(_read_variant, json_schema_input_type=VariantForm)]


class Compress(Section):
    """The variants, and what each of them must keep."""

    variants: dict[Name, WrittenVariant] = Field(default={})
    expect: Expectations = Field(default={})
    properties: tuple[WrittenProperty, ...] = Field(
        default=(), description="What must hold for every input of each variant"
    )

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        made = [TRAINED, *(name for name in self.variants if name not in RESERVED)]
        mistakes = [
            Mistake(("variants", name), f"{name!r} is {RESERVED[name]}", "choose another name", key=True)
            for name in self.variants
            if name in RESERVED
        ]
        sources = {name: variant.sources for name, variant in self.variants.items()}
        for name, variant in self.variants.items():
            for at, source in _named_sources(variant):
                path = ("variants", name, *at)
                if source not in made:
                    mistakes.append(Mistake(path, f"there is no variant {source!r}", did_you_mean(source, made)))
                elif name in _reached(source, sources):
                    mistakes.append(Mistake(path, f"{name} is made from itself, directly or through others"))
        refuse(mistakes)
        return self


def _named_sources(variant: Variant) -> Iterator[tuple[SpecPath, str]]:
    """Yield the variants that a variant names as what it is made from, each with its path in the variant."""
    if variant.source:
        yield ("from",), variant.source
    for number, recipe in enumerate(variant.search.over if variant.search else ()):
        if recipe.start:
            yield ("search", "over", number, 0), recipe.start


def _reached(variant: str, sources: Mapping[str, Iterable[str]]) -> set[str]:
    """Return a variant and all that it is made from, directly or through others."""
    reached, left = set[str](), [variant]
    while left:
        at = left.pop()
        if at not in reached:
            reached.add(at)
            left += sources.get(at, ())
    return reached
