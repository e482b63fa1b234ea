"""Which recipes a search tries, which it takes, and how it says so."""

from __future__ import annotations

import json
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deploycheck.errors import DeploycheckError
from deploycheck.language.recipes import Recipe
from deploycheck.stages.recipe_search import MeasuredRecipe, Reached, as_variants, best_of, describe, report, search


def recipe(bits: int) -> Recipe:
    return Recipe(methods=(("round", {"bits": bits}),))


def bits_of(recipe: Recipe) -> int:
    return int(recipe.methods[-1][1]["bits"])


def measured(size: int, *margins: float, name: int = 0) -> MeasuredRecipe:
    reached = {f"metric{at}": Reached(f"{margin:g} pp", margin >= 0, margin) for at, margin in enumerate(margins)}
    return MeasuredRecipe(recipe=recipe(name or size), size=size, reached=reached)


class Tuned:
    """Recipes of more and more bits, of which so many are enough; counts what is measured."""

    def __init__(self, enough: int, most: int) -> None:
        self.enough, self.most = enough, most
        self.measured: list[int] = []

    def measure(self, given: Recipe) -> MeasuredRecipe:
        self.measured.append(bits_of(given))
        return measured(bits_of(given), bits_of(given) - self.enough)

    def refine(self, given: Recipe) -> list[Recipe]:
        return [recipe(bits) for bits in range(bits_of(given) + 1, self.most + 1)]


@given(st.integers(1, 40), st.integers(1, 40), st.lists(st.integers(1, 40), min_size=1, max_size=4, unique=True))
def test_the_first_of_a_ladder_that_is_enough_is_found_by_few_measurements(
    enough: int, most: int, listed: list[int]
) -> None:
    tuned = Tuned(enough, most)
    tried = search([recipe(bits) for bits in listed], tuned.measure, tuned.refine)
    possible = {*listed, *(range(min(listed), most + 1))}
    expected = min((bits for bits in possible if bits >= enough), default=None)
    found = min((bits_of(it.recipe) for it in tried if it.met), default=None)
    assert found == expected
    assert tuned.measured[: len(listed)] == listed
    assert len(tuned.measured) <= len(listed) * (2 + math.ceil(math.log2(most + 1)))
    assert len(tried) == len(tuned.measured)


def test_what_is_larger_than_what_was_found_is_not_refined() -> None:
    tuned = Tuned(enough=3, most=9)
    tuned.measure = lambda given: measured(bits_of(given), 1 if bits_of(given) == 2 else -1)  # type: ignore[method-assign]
    refined = []
    search([recipe(2), recipe(5)], tuned.measure, lambda given: refined.append(given) or [])
    assert refined == []


def test_a_ladder_is_not_climbed_beyond_what_was_found() -> None:
    tuned, tried = Tuned(enough=3, most=8), list[int]()

    def measure(given: Recipe) -> MeasuredRecipe:
        tried.append(bits_of(given))
        return measured(bits_of(given), 1 if bits_of(given) == 4 else -1)

    search([recipe(4), recipe(1)], measure, tuned.refine)
    assert tried == [4, 1, 5, 3, 4]  # of 2 to 8, nothing beyond 5 is tried: 5 is larger than what was found


def test_the_smallest_that_meets_all_is_taken_and_of_equals_the_best() -> None:
    tried = [measured(9, 1, -1), measured(30, 5, 5), measured(20, 1, 1, name=1), measured(20, 1, 2, name=2)]
    assert best_of(tried, "x") is tried[3]


def test_where_none_meets_the_thresholds_the_nearest_is_named() -> None:
    tried = [measured(9, -1, -1), measured(20, 3, -0.25), measured(30, 3, -0.5)]
    with pytest.raises(DeploycheckError) as caught:
        best_of(tried, "metric0 >= 1")
    assert caught.value.what == (
        "none of 3 recipes meets metric0 >= 1 on the validation split; the nearest, {round: {bits: 20}}, "
        "has metric0 3 pp, metric1 -0.25 pp and 20 bytes"
    )
    assert "`over`" in caught.value.hint
    with pytest.raises(DeploycheckError, match="the one recipe doesn't meet metric0"):
        best_of(tried[:1], "metric0 >= 1")


def test_a_measured_recipe_is_read_again_as_it_was() -> None:
    for each in (measured(9, 1, -1), measured(7, -math.inf)):
        assert MeasuredRecipe.from_plain(json.loads(json.dumps(each.plain()))) == each


CHAIN = Recipe(start="narrow", methods=(("a.b:C", {}), ("quantize", {"weights": {"int4": ["*"], "int8": ["[x]/*"]}})))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Recipe(start="int8"), "int8"),
        (recipe(3), {"round": {"bits": 3}}),
        (
            CHAIN,
            ["narrow", {"method": {"a.b:C": {}}}, {"quantize": {"weights": {"int4": ["*"], "int8": ["[x]/*"]}}}],
        ),
    ],
)
def test_a_recipe_is_described_as_it_is_written(given: Recipe, expected: object) -> None:
    assert yaml.safe_load(describe(given)) == expected
    assert "\n" not in describe(given)


def test_a_chain_is_one_variant_for_each_of_its_methods() -> None:
    assert as_variants(CHAIN, "small", "trained") == {
        "small-1": {"from": "narrow", "method": {"a.b:C": {}}},
        "small": {"from": "small-1", "quantize": {"weights": {"int4": ["*"], "int8": ["[x]/*"]}}},
    }
    assert as_variants(recipe(3), "small", "trained") == {"small": {"round": {"bits": 3}}}
    assert as_variants(recipe(3), "small", "narrow") == {"small": {"from": "narrow", "round": {"bits": 3}}}


def test_the_report_has_every_recipe_and_the_recipe_in_yaml() -> None:
    tried = [measured(3000, 2), measured(90, -1), measured(200, 1)]
    lines = report(tried[2], tried, "metric0 <= 1 pp", as_variants(tried[2].recipe, "small", "trained")).splitlines()
    assert lines[0] == "the smallest of 3 recipes within metric0 <= 1 pp on the validation split has 200 bytes"
    assert yaml.safe_load(lines[1].partition(": ")[2]) == {"small": {"round": {"bits": 200}}}
    assert lines[2:] == [
        "   90 bytes  missed  metric0 -1 pp  {round: {bits: 90}}",
        "  200 bytes  taken   metric0 1 pp  {round: {bits: 200}}",
        "3,000 bytes  met     metric0 2 pp  {round: {bits: 3000}}",
    ]
