"""``properties``: what must hold for every input; each entry is one check. The properties themselves are installed."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import PlainValidator, StrictStr, TypeAdapter, ValidationError, ValidationInfo

from deploycheck.language.errors import Mistake, SpecPath, did_you_mean
from deploycheck.language.fields import Arguments, One, Section, check_import_path, mistake, refuse
from deploycheck.language.vocabulary import PropertyWord, Vocabulary

SECTIONS = ("compress", "serve")
"""The sections that may have ``properties``."""
MORE_IS_STRICTER, LESS_IS_STRICTER = ("examples", "noise"), ("tolerance",)
"""Settings of which a spec may have more, or less, than its standard."""


def _read_property(value: Any, info: ValidationInfo) -> tuple[str, Arguments]:
    """Return a property's name and its settings; those of an import path belong to its object."""
    vocabulary: Vocabulary = info.context or Vocabulary()
    written = {value: {}} if isinstance(value, str) else value
    if not isinstance(written, dict) or len(written) != 1 or not all(isinstance(name, str) for name in written):
        raise mistake("a property is its name, or one name with its settings: `finite`, `{bounded: {low: 0}}`")
    ((name, settings),) = written.items()
    if name in vocabulary.properties:
        read = _by_name(vocabulary.properties[name].settings).validate_python(written, context=info.context)
        return name, read[name].model_dump(mode="json", by_alias=True, exclude_none=True)
    if not isinstance(settings, dict):
        refuse([Mistake((name,), "the settings of a property are a mapping")])
    if ":" in name or "." in name:
        check_import_path(name)
    elif info.context is not None:
        hint = did_you_mean(name, vocabulary.properties)
        at: SpecPath = () if isinstance(value, str) else (name,)
        refuse([Mistake(at, f"unknown property {name!r}", hint, key=True)])
    return name, settings


@functools.lru_cache(maxsize=64)
def _by_name(settings: type[Section]) -> TypeAdapter[dict[str, Section]]:
    """Return what validates ``{PROPERTY: {settings}}``, so that a mistake's path begins with the property's name."""
    return TypeAdapter(dict[str, settings])  # type: ignore[valid-type]


WrittenProperty = Annotated[
    tuple[str, Arguments], PlainValidator(_read_property, json_schema_input_type=StrictStr | One)
]


def check_name(name: str, settings: Mapping[str, Any]) -> str:
    """Return the name of a property's check: the property's, with the label that tells it from another one."""
    label = settings.get("label")
    return f"{name}.{label}" if label else name


def find_properties(data: dict[str, Any]) -> Iterator[tuple[str, SpecPath, str, Arguments]]:
    """Yield every property of a spec's plain data: its section, its path, its name and its settings as written.

    An entry whose structure is wrong is left out: its section reports it.
    """
    for section in SECTIONS:
        part = data.get(section)
        entries = part.get("properties") if isinstance(part, dict) else None
        for index, entry in enumerate(entries if isinstance(entries, list) else ()):
            written = {entry: {}} if isinstance(entry, str) else entry
            if isinstance(written, dict) and len(written) == 1:
                ((name, settings),) = written.items()
                if isinstance(name, str) and isinstance(settings, dict):
                    yield section, (section, "properties", index), name, settings


def complete_settings(word: PropertyWord | None, settings: Arguments, vocabulary: Vocabulary) -> Arguments:
    """Return settings with the defaults of those that are left out; as written where they aren't valid."""
    try:
        read = word.settings.model_validate(settings, context=vocabulary) if word else None
    except ValidationError:
        return settings
    return read.model_dump(mode="json", by_alias=True, exclude={"seed"}) if read else settings


def is_looser(settings: Mapping[str, Any], standard: Mapping[str, Any]) -> bool:
    """Whether settings of a property may let a model pass that the standard's would refuse."""
    for name in settings.keys() | standard.keys():
        match settings.get(name), standard.get(name):
            case (int() | float() as own, int() | float() as asked) if name in MORE_IS_STRICTER:
                looser = own < asked
            case (int() | float() as own, int() | float() as asked) if name in LESS_IS_STRICTER:
                looser = own > asked
            case own, asked:
                looser = own != asked
        if looser:
            return True
    return False
