"""A variant that is searched for: recipes in the words of a variant, and thresholds in those of ``expect``."""

from __future__ import annotations

import pytest

from deploycheck.language.recipes import Recipe
from tests.language.writing import MINIMAL, Project, line_of

WITHIN = '{accuracy_drop: "<= 1 pp"}'
VARIANTS = """\
compress:
  variants:
    int8: {quantize: {weights: int8}}
"""


def searching(over: str, within: str = WITHIN) -> str:
    return f"{MINIMAL}{VARIANTS}    small: {{search: {{within: {within}, over: {over}}}}}\n"


@pytest.mark.parametrize(
    ("over", "start", "methods"),
    [
        ("int8", "int8", ()),
        ("trained", "trained", ()),
        ("quantize: {weights: int8}", None, (("quantize", {"weights": "int8"}),)),
        ("[int8, half: {}]", "int8", (("half", {}),)),
        ("[half: {}, quantize: {weights: int8}]", None, (("half", {}), ("quantize", {"weights": "int8"}))),
        ("method: {'specs.models:anything': {of: 1}}", None, (("specs.models:anything", {"of": 1}),)),
        ("[method: {half: {}}]", None, (("half", {}),)),
    ],
)
def test_a_recipe_is_a_variant_or_a_method_or_a_chain(
    project: Project, over: str, start: str | None, methods: tuple[tuple[str, dict[str, object]], ...]
) -> None:
    section = project.one(searching(f"[{over}]")).compress
    assert section is not None
    variant = section.variants["small"]
    assert variant.method is None
    assert variant.recipes == (Recipe(start=start, methods=methods),)
    assert variant.sources == (start or "trained",)


def test_what_a_search_is_made_from_is_where_its_recipes_begin(project: Project) -> None:
    text = searching("[half: {}, [trained, half: {}]]").replace("small: {", "small: {from: int8, ")
    section = project.one(text).compress
    assert section is not None
    assert section.variants["small"].sources == ("int8", "trained")


@pytest.mark.parametrize(
    ("over", "at", "what", "hint"),
    [
        ("[int9]", "int9", "there is no variant 'int9'", "did you mean 'int8'?"),
        ("[[int9, half: {}]]", "int9", "there is no variant 'int9'", "did you mean 'int8'?"),
        ("[small]", "small", "small is made from itself, directly or through others", ""),
        ("[[int8, int8]]", "int8]]", "a chain may begin with a variant", "write the method with its options"),
        ("[int8, int8]", "int8]", "this recipe is listed twice", "remove one"),
        ("[]", "[]", "no recipe is listed", ""),
        ("[[]]", "[]", "a recipe is a chain of 1 to 10 methods, found 0", ""),
        ("int8", "int8", "expected a list", ""),
        (
            "[{half: {}, prune: {sparsity: 50 %}}]",
            "{half",
            "expected one method, found",
            "a chain is a list of methods",
        ),
        ("[{from: int8, half: {}}]", "from", "unknown key 'from' in `compress.variants.small.search.over.0`", ""),
        ("[{quantise: {weights: int8}}]", "quantise", "unknown key 'quantise' in", "did you mean 'quantize'?"),
        ("[[half: {}, quantize: {wieghts: int8}]]", "wieghts", "unknown key 'wieghts' in", "did you mean 'weights'?"),
        ("[half: {}, quantize: {weights: int7}]", "int7", "'int7' is not one of: int8", "did you mean 'int8'?"),
        ("[[half: {}, method: {halve: {}}]]", "halve", "unknown compression method 'halve'", "did you mean 'half'?"),
        ("[[method: {'specs.nowhere:it': {}}]]", "{}", "there is no module specs.nowhere", ""),
    ],
)
def test_a_mistake_in_a_recipe_is_reported_at_its_place(
    project: Project, over: str, at: str, what: str, hint: str
) -> None:
    text = searching(over)
    (error,) = project.errors(text).errors
    line = text.splitlines()[line_of(text, "small:") - 1]
    assert (error.place.line, error.place.column) == (line_of(text, "small:"), line.index(at, line.index("over")) + 1)
    assert what in error.what
    assert hint in error.hint


@pytest.mark.parametrize(
    ("within", "at", "what"),
    [
        ("{}", "{}", "a search needs a threshold"),
        ('{acuracy: ">= 9 %"}', "acuracy", "unknown metric 'acuracy' in compress"),
        ('{latency.p99: "<= 9 ms"}', "latency", "latency.p99 is not measured in compress"),
        ('{accuracy_drop: "<= 1"}', '"}', "its unit is pp"),
        ("{accuracy_drop: 1}", "1", "needs a comparator"),
        ('{accuracy: "<= 90 %"}', "<= 90", "would accept bad models"),
        ('{accuracy: {threshold: ">= 90 %"}}', "{threshold", "expected a text"),
        ('{accuracy: ">= 90 % of baseline"}', '">= 90', "a search compares recipes with the trained model only"),
        ('{size: "<= 2 x int8"}', '"<= 2', "a search compares recipes with the trained model only"),
        ('{rmse: "<= 2"}', "rmse", "rmse measures numbers"),
    ],
)
def test_a_mistake_in_a_threshold_is_reported_at_its_place(project: Project, within: str, at: str, what: str) -> None:
    text = searching("[int8]", within)
    (error,) = project.errors(text).errors
    line = text.splitlines()[line_of(text, "small:") - 1]
    assert what in error.what
    assert line[error.place.column - 1 :].startswith(at)


@pytest.mark.parametrize(
    "within", ['{size: "<= 9 kB"}', '{accuracy: ">= 99 % of reference"}', '{size: "<= 1 x trained"}']
)
def test_thresholds_may_be_of_any_metric_of_the_section_and_of_the_trained_model(project: Project, within: str) -> None:
    project.one(searching("[int8]", within))


def test_a_variant_has_a_method_or_a_search(project: Project) -> None:
    text = searching("[int8]").replace("small: {", "small: {half: {}, ")
    (error,) = project.errors(text).errors
    assert error.what == "a variant has one method, found half, search"


def test_two_searches_can_not_be_made_from_each_other(project: Project) -> None:
    one = searching("[other]")
    (first, second) = project.errors(one + f"    other: {{search: {{within: {WITHIN}, over: [small]}}}}\n").errors
    assert {first.what.partition(" is ")[0], second.what.partition(" is ")[0]} == {"small", "other"}


def test_a_search_needs_validation_examples(project: Project) -> None:
    project.write("", "start.npz")
    before, _, _ = MINIMAL.partition("train:")
    split = "  split: {train: 0, validation: 0, test: 1}\n"
    weights = "\n  weights: {load: npz, path: start.npz}\ndata:\n"
    text = before.replace("\ndata:\n", weights) + split + searching("[int8]").removeprefix(MINIMAL)
    (error,) = project.errors(text).errors
    assert error.what == "the search for small needs examples for validation"
    assert error.place.line == line_of(text, "split:")
