"""How a compression method is written, by the name of an installed one or by its import path, with its options."""

from __future__ import annotations

import functools
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, Field, TypeAdapter, ValidationInfo, create_model

from deploycheck.language.errors import Mistake, did_you_mean
from deploycheck.language.fields import Arguments, ImportPath, One, Section, With, mistake, refuse
from deploycheck.language.vocabulary import Vocabulary

NOTHING = Vocabulary()
"""What is installed where a validator is given no vocabulary."""

Method = tuple[str, Arguments]
"""The name of an installed method, or an import path, with its options as plain data.

The options of an installed method are complete, and its options class accepts them.
"""


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


def models_of(method: Method, vocabulary: Vocabulary) -> tuple[ImportPath, ...]:
    """Return the import paths of the models that a method's options name."""
    name, options = method
    named = [options[key].get("build") for key in model_keys(vocabulary.methods.get(name)) if key in options]
    return tuple(path for path in named if path)


def _read_method(value: dict[str, Arguments], info: ValidationInfo) -> dict[str, Arguments]:
    """Validate the options of ``method: {NAME: {options}}``; those of an import path belong to its object."""
    vocabulary: Vocabulary = info.context or NOTHING
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


class MethodForm(Section):
    """One compression method, as specs write it; ``with_methods`` adds a key for each installed one."""

    method: Annotated[One, AfterValidator(_read_method)] | None = Field(
        default=None, description="A method by its import path, package.module:NAME, or by its name, with its options"
    )

    def methods(self) -> list[Method]:
        """Return the methods that are written: one, unless there is a mistake."""
        fields = type(self).model_fields
        added = fields.keys() - _declared(type(self))
        installed = [
            (str(fields[name].alias), _plain(value))
            for name, value in self
            if name in added and isinstance(value, Section)
        ]
        return [*installed, *(self.method or {}).items()]

    def only_method(self) -> Method:
        """Return the method that is written; refuse none, or several."""
        methods = self.methods()
        if len(methods) != 1:
            found = ", ".join(name for name, _ in methods) or "none"
            raise mistake(f"expected one method, found {found}", "a chain is a list of methods", key=True)
        return methods[0]


def _declared(form: type[MethodForm]) -> set[str]:
    """Return the fields that a form has whatever is installed."""
    return {name for base in form.__mro__[1:] if issubclass(base, MethodForm) for name in base.model_fields}


FormT = TypeVar("FormT", bound=MethodForm)


@functools.lru_cache(maxsize=32)
def with_methods(form: type[FormT], vocabulary: Vocabulary) -> type[FormT]:
    """Return a form with a key for each method of ``vocabulary``."""
    methods: dict[str, Any] = {
        f"method_{number}": (options, Field(default=None, alias=name))
        for number, (name, options) in enumerate(vocabulary.methods.items())
    }
    return create_model(f"Installed{form.__name__}", __base__=form, __doc__=form.__doc__, **methods)
