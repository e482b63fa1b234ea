"""A whole spec as it is written, and the JSON Schema that editors take from it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictStr, create_model
from pydantic.json_schema import models_json_schema
from pydantic_core import PydanticCustomError

from deploycheck.language.fields import Name, Section, Share
from deploycheck.language.methods import MethodForm, with_methods
from deploycheck.language.optimize import Optimize
from deploycheck.language.spec import Data, Model, OwnMetric, Promote, Serve, Train, Waiver
from deploycheck.language.variants import Compress, Variant, VariantForm
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
    optimize: Optimize | None = None
    compress: Compress | None = None
    serve: Serve | None = None
    promote: Promote | None = None
    metrics: dict[Name, OwnMetric] = Field(default={})
    matrix: dict[str, Annotated[list[Any], Field(min_length=1)]] | None = None
    waive: dict[str, Waiver] = Field(default={})


_FORMS: Mapping[type[MethodForm], str] = {VariantForm: Variant.__name__, MethodForm: "Method"}
"""What the schema calls each form to which installed methods are added."""
_TITLES = {f"#/$defs/{form.__name__}": f"#/$defs/{title}" for form, title in _FORMS.items()}


@dataclass(frozen=True)
class SpecSection:
    """A section of a spec that an extension adds, for a kind of step: its name, and the class of its content."""

    name: str
    type: type[Section]


@functools.lru_cache(maxsize=16)
def tree_form(vocabulary: Vocabulary) -> type[Tree]:
    """Return the class of a whole spec where ``vocabulary`` is installed: with the sections that it adds."""
    if not vocabulary.sections:
        return Tree
    added: dict[str, Any] = {name: (section | None, None) for name, section in vocabulary.sections.items()}
    return create_model("Tree", __base__=Tree, __doc__=Tree.__doc__, **added)


def json_schema(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a spec file where ``vocabulary`` is installed.

    Installed names become enumerations, and each installed method is a key of a variant with the method's options.
    """
    classes = (tree_form(vocabulary), *(with_methods(form, vocabulary) for form in _FORMS))
    refs, schema = models_json_schema([(each, "validation") for each in classes], by_alias=True)
    parts = {f"#/$defs/{name}": part for name, part in schema["$defs"].items()}
    tree, *forms = (parts.pop(refs[each, "validation"]["$ref"]) for each in classes)
    for (form, title), part in zip(_FORMS.items(), forms, strict=True):
        parts.pop(f"#/$defs/{form.__name__}")
        parts[f"#/$defs/{title}"] = {**part, "title": title}
    definitions = {ref.rpartition("/")[2]: part for ref, part in sorted(parts.items())}
    filled: dict[str, Any] = _fill({**tree, "$defs": definitions}, vocabulary)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **filled, "title": "deploycheck spec"}


def _fill(part: Any, vocabulary: Vocabulary) -> Any:
    """Return a part of the schema with each mark ``installed`` replaced by the names that are installed."""
    match part:
        case {"installed": str(kind), **rest}:
            return {**rest, "enum": vocabulary.names(kind)}
        case {"$ref": ref, **rest} if ref in _TITLES:
            return {**rest, "$ref": _TITLES[ref]}
        case dict():
            return {key: _fill(value, vocabulary) for key, value in part.items()}
        case list():
            return [_fill(value, vocabulary) for value in part]
    return part
