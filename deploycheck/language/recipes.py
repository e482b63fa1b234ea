"""A variant's ``search``: the recipes that are tried, and what the one that is taken must meet.

Whether the thresholds fit their metrics is checked in ``language/expect.py``, with those under ``expect``.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, StrictStr, TypeAdapter, ValidationInfo

from deploycheck.language.errors import Mistake
from deploycheck.language.fields import ImportPath, Section, Whole, mistake, refuse
from deploycheck.language.methods import NOTHING, Method, MethodForm, models_of, with_methods

MOST_RECIPES, LONGEST_CHAIN = 100, 10


class Recipe(Section):
    """How a model is made: from the variant ``start``, by ``methods``, one after the other.

    Without ``start`` it is made from what the variant that searches is made from. ``models`` are the import paths of
    the models that the methods' options name.
    """

    start: StrictStr | None = None
    methods: tuple[Method, ...] = ()
    models: tuple[ImportPath, ...] = ()


def _read_part(value: Any, info: ValidationInfo) -> str | Method:
    """Read one part of a recipe: a variant's name, or a method."""
    if isinstance(value, str):
        return value
    form: type[MethodForm] = with_methods(MethodForm, info.context or NOTHING)
    return form.model_validate(value, context=info.context).only_method()


_PARTS: TypeAdapter[list[str | Method]] = TypeAdapter(list[Annotated[Any, PlainValidator(_read_part)]])


def _read_recipe(value: Any, info: ValidationInfo) -> Recipe:
    """Read a part, or a list of parts of which only the first may be a variant's name."""
    if isinstance(value, Recipe):
        return value
    if not isinstance(value, list):
        return _recipe([_read_part(value, info)], info)
    if not 1 <= len(value) <= LONGEST_CHAIN:
        raise mistake(f"a recipe is a chain of 1 to {LONGEST_CHAIN} methods, found {len(value)}")
    parts = _PARTS.validate_python(value, context=info.context)
    what, hint = "a chain may begin with a variant, and goes on with methods", "write the method with its options"
    refuse(Mistake((at,), what, hint) for at, part in enumerate(parts) if at > 0 and isinstance(part, str))
    return _recipe(parts, info)


def _recipe(parts: list[str | Method], info: ValidationInfo) -> Recipe:
    start = next((part for part in parts if isinstance(part, str)), None)
    methods = tuple(part for part in parts if not isinstance(part, str))
    models = tuple(path for method in methods for path in models_of(method, info.context or NOTHING))
    return Recipe(start=start, methods=methods, models=models)


def _check_recipes(recipes: tuple[Recipe, ...]) -> tuple[Recipe, ...]:
    if not recipes:
        raise mistake("no recipe is listed", "list variants, methods, or chains of methods")
    refuse(
        Mistake((at,), "this recipe is listed twice", "remove one")
        for at, recipe in enumerate(recipes)
        if recipe in recipes[:at]
    )
    return recipes


def _check_within(within: dict[str, str]) -> dict[str, str]:
    if not within:
        raise mistake(
            "a search needs a threshold: the smallest artifact of all would be taken", "add `accuracy_drop: ...`"
        )
    return within


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


_Part = StrictStr | MethodForm
WrittenRecipe = Annotated[Recipe, PlainValidator(_read_recipe, json_schema_input_type=_Part | list[_Part])]


class RecipeSearch(Section):
    """A search for the smallest artifact that meets thresholds on the validation split.

    ``within`` are the thresholds, on metrics of the section ``compress``; ``over`` are the recipes that are tried.
    """

    within: Annotated[
        dict[StrictStr, Annotated[StrictStr, BeforeValidator(_as_text, json_schema_input_type=StrictStr)]],
        Field(json_schema_extra={"minProperties": 1}),
        AfterValidator(_check_within),
        Whole(),
    ]
    over: Annotated[
        tuple[WrittenRecipe, ...],
        Field(max_length=MOST_RECIPES, json_schema_extra={"minItems": 1}),
        AfterValidator(_check_recipes),
    ]
