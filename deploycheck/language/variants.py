"""The ``compress`` section: variants of the model, each made by one compression method that is installed."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Annotated, Any, Self, get_args

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    StrictStr,
    TypeAdapter,
    ValidationInfo,
    create_model,
    model_validator,
)

from deploycheck.language.errors import Mistake, did_you_mean
from deploycheck.language.fields import Arguments, ImportPath, Installed, Name, One, Section, With, mistake, refuse
from deploycheck.language.properties import WrittenProperty
from deploycheck.language.spec import Expectations
from deploycheck.language.vocabulary import Vocabulary

TRAINED, BASELINE = "trained", "baseline"
RESERVED: Mapping[str, str] = {TRAINED: "the model before compression", BASELINE: "what is promoted now"}
"""Names that no variant can have, and what they mean."""

_NOTHING = Vocabulary()
"""What is installed where a validator is given no vocabulary."""


class AnotherModel(Section):
    """A model besides the spec's own, as an option of a method; it has the spec's inputs and task.

    Without ``build`` it is built as the spec's own model, whose arguments it has where ``with`` gives no others.
    """

    build: ImportPath | None = None
    arguments: With = Field(default={}, alias="with")


def model_keys(options: type[Section] | None) -> list[str]:
    """Return the keys under which a method's options name another model."""
    fields = options.model_fields.items() if options else ()
    return [
        field.alias or name for name, field in fields if AnotherModel in (field.annotation, *get_args(field.annotation))
    ]


class Variant(Section):
    """One deployable form: made from the trained model, or from the variant ``source``, by one method.

    ``method`` is the name of an installed method, or an import path, with its options as plain data. The options of
    an installed method are complete, and its options class accepts them. Without a method, the variant has the weights
    of its source, for another runtime. ``models`` are the import paths of the models that the options name. ``runtime``
    is None where it is that of the section ``serve``.
    """

    source: StrictStr | None = None
    method: tuple[str, Arguments] | None = None
    runtime: StrictStr | None = None
    models: tuple[ImportPath, ...] = ()
    expect: Expectations = Field(default={})


def _read_method(value: dict[str, Arguments], info: ValidationInfo) -> dict[str, Arguments]:
    """Validate the options of ``method: {NAME: {options}}``; those of an import path belong to its object."""
    vocabulary: Vocabulary = info.context or _NOTHING
    ((name, _),) = value.items()
    if name in vocabulary.methods:
        read = _by_name(vocabulary.methods[name]).validate_python(value, context=info.context)
        return {name: _plain(options) for name, options in read.items()}
    if ":" not in name and info.context is not None:
        hint = did_you_mean(name, vocabulary.methods)
        refuse([Mistake((name,), f"unknown compression method {name!r}", hint, key=True)])
    return value


@functools.lru_cache(maxsize=64)
def _by_name(options: type[Section]) -> TypeAdapter[dict[str, Section]]:
    """Return what validates ``{METHOD: {options}}``, so that a mistake's path begins with the method's name."""
    return TypeAdapter(dict[str, options])  # type: ignore[valid-type]


def _plain(options: Section) -> Arguments:
    return options.model_dump(mode="json", by_alias=True, exclude_none=True)


class VariantForm(Section):
    """One deployable form: made from the trained model, or ``from`` another variant, by one method, for a runtime.

    It is the form in which specs write a ``Variant``; ``variant_form`` adds a key for each installed method.
    """

    source: StrictStr | None = Field(default=None, alias="from")
    method: Annotated[One, AfterValidator(_read_method)] | None = Field(
        default=None, description="A method by its import path, package.module:NAME, or by its name, with its options"
    )
    runtime: Annotated[StrictStr, Installed("runtime")] | None = Field(
        default=None, description="What executes this variant; the `runtime` of `serve` if left out"
    )
    expect: Expectations = Field(default={})

    def variant(self, vocabulary: Vocabulary) -> Variant:
        """Return the variant that is written; refuse one with several methods, or with neither method nor runtime."""
        fields = type(self).model_fields
        installed = {
            str(fields[name].alias): _plain(value)
            for name, value in self
            if name not in VariantForm.model_fields and isinstance(value, Section)
        }
        methods = [*installed.items(), *(self.method or {}).items()]
        if len(methods) > 1:
            found = ", ".join(name for name, _ in methods)
            hint = "build one variant `from` another to chain methods"
            raise mistake(f"a variant has one method, found {found}", hint, key=True)
        if not methods and not self.runtime:
            raise mistake("a variant has one method, found none", "add a method, or a `runtime` of its own", key=True)
        named = [
            options[key].get("build")
            for name, options in methods
            for key in model_keys(vocabulary.methods.get(name))
            if key in options
        ]
        return Variant(
            source=self.source,
            method=methods[0] if methods else None,
            runtime=self.runtime,
            models=tuple(path for path in named if path),
            expect=self.expect,
        )


@functools.lru_cache(maxsize=16)
def variant_form(vocabulary: Vocabulary) -> type[VariantForm]:
    """Return the class of a variant as specs write it where ``vocabulary`` is installed: one key per method."""
    methods: dict[str, Any] = {
        f"method_{number}": (options, Field(default=None, alias=name))
        for number, (name, options) in enumerate(vocabulary.methods.items())
    }
    return create_model("InstalledVariant", __base__=VariantForm, __doc__=VariantForm.__doc__, **methods)


def _read_variant(value: Any, info: ValidationInfo) -> Variant:
    if isinstance(value, Variant):
        return value
    vocabulary: Vocabulary = info.context or _NOTHING
    return variant_form(vocabulary).model_validate(value, context=info.context).variant(vocabulary)


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
        sources: dict[str, str] = {name: it.source for name, it in self.variants.items() if it.source}
        made = [TRAINED, *(name for name in self.variants if name not in RESERVED)]
        mistakes = [
            Mistake(("variants", name), f"{name!r} is {RESERVED[name]}", "choose another name", key=True)
            for name in self.variants
            if name in RESERVED
        ]
        for name, source in sources.items():
            at = ("variants", name, "from")
            if source not in made:
                mistakes.append(Mistake(at, f"there is no variant {source!r}", did_you_mean(source, made)))
            elif _is_circular(name, sources):
                mistakes.append(Mistake(at, f"{name} is made from itself, directly or through others"))
        refuse(mistakes)
        return self


def _is_circular(name: str, sources: Mapping[str, str]) -> bool:
    """Whether the way from a variant along its sources leads back to it."""
    at, seen = sources[name], set[str]()
    while at in sources and at not in seen:
        seen.add(at)
        at = sources[at]
    return name in seen
