"""How the axes of an equation's result come from those of its operand, for equations that only rearrange a weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

REARRANGING = frozenset(
    {
        "broadcast_in_dim",
        "concatenate",
        "convert_element_type",
        "copy",
        "copy_p",
        "dynamic_slice",
        "reshape",
        "slice",
        "split",
        "squeeze",
        "transpose",
    }
)
"""Primitives that move the numbers of a weight, and compute none."""
PRODUCTS = frozenset({"dot_general", "conv_general_dilated"})
LOOKUP = "gather"

Axes = tuple[int, ...]


def origins(equation: Any) -> list[Axes]:
    """Return, for each axis of the result, the axes of the first operand that it comes from."""
    known, operand = equation.params, equation.invars[0].aval
    match equation.primitive.name:
        case "transpose":
            return [(axis,) for axis in known["permutation"]]
        case "squeeze":
            return [(axis,) for axis in range(operand.ndim) if axis not in known["dimensions"]]
        case "broadcast_in_dim":
            kept = {to: axis for axis, to in enumerate(known["broadcast_dimensions"])}
            return [(kept[axis],) if axis in kept else () for axis in range(len(known["shape"]))]
        case "reshape":
            pairs = regroup(operand.shape, known["new_sizes"])
            return [before for before, after in pairs for _ in after]
        case _:
            return [(axis,) for axis in range(operand.ndim)]


def regroup(old: Sequence[int], new: Sequence[int]) -> list[tuple[Axes, Axes]]:
    """Split a reshape into the smallest runs of neighbouring axes that have equally many numbers before and after.

    Each run is its axes in ``old`` and those in ``new``; in order, they are all axes of both.
    """
    if 0 in old:
        return [(tuple(range(len(old))), tuple(range(len(new))))]
    runs: list[tuple[Axes, Axes]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        before, after = (i, i + 1) if i < len(old) else (i, i), (j, j + 1) if j < len(new) else (j, j)
        while (left := math.prod(old[slice(*before)])) != (right := math.prod(new[slice(*after)])):
            if left < right:
                before = (i, before[1] + 1)
            else:
                after = (j, after[1] + 1)
        runs.append((tuple(range(*before)), tuple(range(*after))))
        i, j = before[1], after[1]
    return runs


def summed(equation: Any, side: int) -> Axes:
    """Return the axes of an operand of a product that are summed over."""
    numbers = equation.params["dimension_numbers"]
    if equation.primitive.name == "dot_general":
        return tuple(numbers[0][side])
    spec = numbers.lhs_spec if side == 0 else numbers.rhs_spec
    return (*spec[2:], spec[1])


def looked_up(equation: Any) -> Axes | None:
    """Return the axes of a table that a lookup chooses from, one index each; None where it doesn't take whole rows."""
    known, shape = equation.params, equation.invars[0].aval.shape
    numbers, sizes = known["dimension_numbers"], known["slice_sizes"]
    chosen = tuple(numbers.start_index_map)
    whole = all(sizes[axis] == (1 if axis in chosen else size) for axis, size in enumerate(shape))
    marked = known["fill_value"] is None or math.isnan(known["fill_value"])
    return chosen if whole and marked and chosen and not numbers.operand_batching_dims else None
