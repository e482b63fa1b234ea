"""The search for the smallest artifact that meets thresholds: which recipes are tried, and which is taken. Pure.

All recipes that are listed are tried. Those that miss a threshold are refined where their last method can be: it gives
options that lose less and take more bytes, in ascending order. Of these, the first that meets the thresholds is found
by halving, so that few are tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deploycheck.errors import DeploycheckError
from deploycheck.language.recipes import Recipe
from deploycheck.language.variants import TRAINED


@dataclass(frozen=True)
class Reached:
    """What a recipe reached of one threshold: the value as it is shown, and whether that meets it.

    ``margin`` is by how much the value is better than the limit, as a share of the limit; below 0 it is worse.
    """

    shown: str
    met: bool
    margin: float


@dataclass(frozen=True, kw_only=True)
class MeasuredRecipe:
    """One recipe that was tried: the bytes of its artifact, and what it reached, by metric."""

    recipe: Recipe
    size: int
    reached: Mapping[str, Reached]

    @property
    def met(self) -> bool:
        """Whether it meets every threshold."""
        return all(each.met for each in self.reached.values())

    @property
    def missed(self) -> tuple[int, float]:
        """How many thresholds it misses, and by how much: the lower, the nearer it is."""
        missed = [each.margin for each in self.reached.values() if not each.met]
        return len(missed), -math.fsum(missed)

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "recipe": self.recipe.model_dump(mode="json")}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> MeasuredRecipe:
        """Return what ``plain`` made into plain data."""
        reached = {name: Reached(**each) for name, each in plain["reached"].items()}
        return cls(recipe=Recipe.model_validate(plain["recipe"]), size=plain["size"], reached=reached)


def search(
    recipes: Sequence[Recipe], measure: Callable[[Recipe], MeasuredRecipe], refine: Callable[[Recipe], Sequence[Recipe]]
) -> list[MeasuredRecipe]:
    """Return every recipe that was tried.

    ``measure`` makes an artifact by a recipe and measures it. ``refine`` returns recipes that lose less and less, each
    larger than those before it; none for a recipe that can't be refined.
    """
    tried = [measure(recipe) for recipe in recipes]
    for measured in sorted(tried, key=lambda measured: measured.size):
        if not measured.met and measured.size < _smallest(tried):
            _climb(refine(measured.recipe), measure, tried)
    return tried


def _climb(ladder: Sequence[Recipe], measure: Callable[[Recipe], MeasuredRecipe], tried: list[MeasuredRecipe]) -> None:
    """Find the first recipe of a ladder that meets the thresholds, unless a smaller one was found before."""
    low, high = 0, len(ladder)
    while low < high:
        middle = (low + high) // 2
        measured = measure(ladder[middle])
        is_enough = measured.met or measured.size >= _smallest(tried)
        tried.append(measured)
        low, high = (low, middle) if is_enough else (middle + 1, high)


def _smallest(tried: Sequence[MeasuredRecipe]) -> float:
    return min((measured.size for measured in tried if measured.met), default=math.inf)


def best_of(tried: Sequence[MeasuredRecipe], thresholds: str) -> MeasuredRecipe:
    """Return the smallest recipe that meets the thresholds; of equals, the one with the most margin.

    Raises ``DeploycheckError`` with the nearest one where none does.
    """
    meeting = [measured for measured in tried if measured.met]
    if meeting:
        return min(meeting, key=lambda it: (it.size, -math.fsum(each.margin for each in it.reached.values())))
    nearest = min(tried, key=lambda measured: (measured.missed, measured.size))
    reached = ", ".join(f"{name} {each.shown}" for name, each in nearest.reached.items())
    count = f"none of {len(tried)} recipes" if len(tried) > 1 else "the one recipe doesn't"
    raise DeploycheckError(
        f"{count} meet{'s' if len(tried) > 1 else ''} {thresholds} on the validation split; the nearest, "
        f"{describe(nearest.recipe)}, has {reached} and {nearest.size:,} bytes",
        hint="add recipes that lose less under `over`, or allow more under `within`",
    )


def describe(recipe: Recipe) -> str:
    """Return a recipe in YAML on one line, as it is written under ``over``."""
    parts: list[Any] = [*([recipe.start] if recipe.start else []), *map(written, recipe.methods)]
    return as_yaml(parts[0] if len(parts) == 1 else parts)


def written(method: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return a method as a spec writes it."""
    name, options = method
    return {"method": {name: dict(options)}} if ":" in name else {name: dict(options)}


def as_yaml(plain: Any) -> str:
    """Return plain data in YAML on one line."""
    import yaml

    text: str = yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, width=math.inf, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def describe_reached(measured: MeasuredRecipe) -> str:
    """Return a recipe's bytes and what it reached: ``12,345 bytes, accuracy_drop 0.5 pp (met)``."""
    reached = [f"{name} {each.shown}" for name, each in measured.reached.items()]
    return f"{', '.join([f'{measured.size:,} bytes', *reached])} ({'met' if measured.met else 'missed'})"


def as_variants(recipe: Recipe, name: str, source: str) -> dict[str, Any]:
    """Return variants as a spec has them, the last of which, ``name``, is made as a recipe says; none if it is one.

    ``source`` is the variant that a recipe without a ``start`` is made from.
    """
    variants, before = {}, recipe.start or source
    for number, method in enumerate(recipe.methods, 1):
        here = name if number == len(recipe.methods) else f"{name}-{number}"
        variants[here] = {**({"from": before} if before != TRAINED else {}), **written(method)}
        before = here
    return variants


def report(best: MeasuredRecipe, tried: Sequence[MeasuredRecipe], thresholds: str, by_hand: Mapping[str, Any]) -> str:
    """Return what was found, how it is written by hand, and every recipe with its bytes, in lines."""
    lines = [
        f"the smallest of {len(tried)} recipes within {thresholds} on the validation split has {best.size:,} bytes",
        *(f"as written by hand: {as_yaml({name: variant})[1:-1]}" for name, variant in by_hand.items()),
    ]
    width = max(len(f"{measured.size:,}") for measured in tried)
    for measured in sorted(tried, key=lambda measured: measured.size):
        reached = ", ".join(f"{name} {each.shown}" for name, each in measured.reached.items())
        mark = "taken" if measured is best else "met" if measured.met else "missed"
        lines.append(f"{measured.size:>{width},} bytes  {mark:6}  {reached}  {describe(measured.recipe)}")
    return "\n".join(lines)
