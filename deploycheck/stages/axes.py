"""Axes of values as products of parts, of which some can be cut.

The axis of 1,568 that flattens 7 by 7 pixels of 32 channels has three parts. If the channels are cut, it becomes
smaller in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from deploycheck.errors import DeploycheckError


@dataclass(eq=False)
class Part:
    """A part of an axis. ``kept`` is how many of its positions are left, if some are cut.

    A part that was found to be another, or to consist of several, is resolved ``into`` these.
    """

    size: Any
    kept: int | None = None
    fixed: bool = False
    into: tuple[Part, ...] | None = None


Axis = tuple[Part, ...]
"""From the outermost part to the innermost; an axis of size 1 has none."""
Axes = tuple[Axis, ...]


def fresh(shape: Sequence[Any], *, fixed: bool = False) -> Axes:
    """Return the axes of a value of which nothing is known."""
    return tuple(() if same_size(size, 1) else (Part(size, fixed=fixed),) for size in shape)


def resolve(axis: Iterable[Part]) -> Axis:
    """Return the parts that an axis now consists of."""
    return tuple(root for part in axis for root in _roots(part))


def _roots(part: Part) -> Axis:
    if part.into is None:
        return (part,)
    found, left = [], [part]
    while left:  # not by recursion: in a deep network a part has become another thousands of times
        each = left.pop()
        if each.into is None:
            found.append(each)
        else:
            left += reversed(each.into)
    part.into = tuple(found)
    return part.into


def size_of(axis: Axis) -> Any:
    """Return the size of an axis after its parts are cut."""
    return math.prod(part.size if part.kept is None else part.kept for part in resolve(axis))


def fix(axes: Iterable[Axis]) -> None:
    """Say that these axes can't be cut."""
    for axis in axes:
        for part in resolve(axis):
            part.fixed = True


def tie(one: Axis, other: Axis) -> None:
    """Say that two axes have the same size and are cut in the same way; their parts are compared from the innermost.

    Where one has a part that is a multiple of the other's, it is split. Where their sizes have no common parts, both
    are fixed.
    """
    left, right = list(resolve(one)), list(resolve(other))
    while left and right:
        (*more_left, a), (*more_right, b) = resolve([left.pop()]), resolve([right.pop()])
        left, right = left + more_left, right + more_right
        if a is b:
            continue
        if same_size(a.size, b.size):
            _unite(a, b)
        elif _divides(b.size, a.size):
            left += _split(a, b.size)
            right.append(b)
        elif _divides(a.size, b.size):
            right += _split(b, a.size)
            left.append(a)
        else:
            fix([(a, b), tuple(left), tuple(right)])
            return
    fix([tuple(left), tuple(right)])


def same_size(one: Any, other: Any) -> bool:
    """Whether two sizes are equal; the symbolic size of a batch is equal to itself."""
    return bool(one == other)


def _divides(one: Any, other: Any) -> bool:
    """Whether a size divides another, whatever the symbolic size of a batch is: 4 and the batch divide 4 batches."""
    return same_size(other % one, 0)


def _unite(one: Part, other: Part) -> None:
    if None not in (one.kept, other.kept) and one.kept != other.kept:
        raise DeploycheckError(f"axes of one group would be cut to {one.kept} and to {other.kept}")
    one.fixed |= other.fixed
    one.kept = other.kept if one.kept is None else one.kept
    other.into = (one,)


def _split(part: Part, inner: int) -> Axis:
    if part.kept is not None:
        raise DeploycheckError(f"an axis of which {part.kept} of {part.size} are left would be split")
    part.into = (Part(part.size // inner, fixed=part.fixed), Part(inner, fixed=part.fixed))
    return part.into
