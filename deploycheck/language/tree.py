"""A whole spec as it is written, and the JSON Schema that editors take from it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictStr
from pydantic_core import PydanticCustomError

from deploycheck.language.fields import Name, Section, Share
from deploycheck.language.spec import Data, Model, OwnMetric, Promote, Serve, Train, Waiver
from deploycheck.language.variants import Compress, VariantForm, variant_form
from deploycheck.language.vocabulary import Vocabulary


def _version(value: Any) -> Any:
    if type(value) is not int or value != 1:  # True and 1.0 equal 1
        raise PydanticCustomError("language_version", "unknown language version")
    return value


class Tree(Section):
    """A whole spec as it is written. Validate it with the ``Vocabulary`` as pydantic's context."""

    deploycheck: Annotated[Literal[1], BeforeValidator(_version)]
    name: Name
    description: StrictStr = ""
    owner: StrictStr = ""
    extends: StrictStr | None = None
    confidence: Annotated[Share, Field(ge=0.5, lt=1)] = 0.95
    model: Model | None = None
    data: Data | None = None
    train: Train | None = None
    compress: Compress | None = None
    serve: Serve | None = None
    promote: Promote | None = None
    metrics: dict[Name, OwnMetric] = Field(default={})
    matrix: dict[str, Annotated[list[Any], Field(min_length=1)]] | None = None
    waive: dict[str, Waiver] = Field(default={})


def json_schema(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a spec file where ``vocabulary`` is installed.

    Installed names become enumerations, and each installed method is a key of a variant with the method's options.
    """
    schema = Tree.model_json_schema(by_alias=True, mode="validation")
    variant = variant_form(vocabulary).model_json_schema(by_alias=True, mode="validation")
    definitions = {name: part for name, part in schema.pop("$defs").items() if name != VariantForm.__name__}
    definitions |= {**variant.pop("$defs", {}), "Variant": variant}
    filled: dict[str, Any] = _fill({**schema, "$defs": dict(sorted(definitions.items()))}, vocabulary)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **filled, "title": "deploycheck spec"}


def _fill(part: Any, vocabulary: Vocabulary) -> Any:
    """Return a part of the schema with each mark ``installed`` replaced by the names that are installed."""
    match part:
        case {"installed": str(kind), **rest}:
            return {**rest, "enum": vocabulary.names(kind)}
        case {"$ref": "#/$defs/VariantForm", **rest}:
            return {**rest, "$ref": "#/$defs/Variant"}
        case dict():
            return {key: _fill(value, vocabulary) for key, value in part.items()}
        case list():
            return [_fill(value, vocabulary) for value in part]
    return part
