from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import export

from deploycheck.errors import DeploycheckError
from deploycheck.stages.axes import Axis, Part, fix, fresh, resolve, size_of, tie


def parts(*sizes: int) -> Axis:
    return tuple(Part(size) for size in sizes)


def sizes(axis: Axis) -> list[int]:
    return [part.size for part in resolve(axis)]


def test_an_axis_of_size_one_has_no_parts() -> None:
    assert [sizes(axis) for axis in fresh((3, 1, 5))] == [[3], [], [5]]
    assert size_of(()) == 1


def test_two_axes_become_one() -> None:
    one, other = fresh((6, 6))
    tie(one, other)
    assert resolve(one) == resolve(other)
    fix([other])
    assert resolve(one)[0].fixed


def test_a_flattened_axis_is_split_like_its_parts() -> None:
    image, flat = parts(7, 7, 32), parts(1568)
    tie(flat, image)
    assert sizes(flat) == [7, 7, 32]
    assert resolve(flat) == resolve(image)
    resolve(image)[2].kept = 16
    assert size_of(flat) == 784


def test_parts_that_do_not_line_up_are_fixed() -> None:
    one, other = parts(4, 6), parts(6, 4)
    tie(one, other)
    assert all(part.fixed for part in resolve(one + other))


def test_only_what_does_not_line_up_is_fixed() -> None:
    one, other = parts(4, 9, 5), parts(6, 6, 5)
    tie(one, other)
    assert [part.fixed for part in resolve(one)] == [True, True, False]


def test_a_part_that_is_twice_in_an_axis_is_split_in_both_places() -> None:
    square = parts(6) * 2
    tie(square, parts(3, 2, 3, 2))
    assert sizes(square) == [3, 2, 3, 2]
    assert resolve(square)[:2] == resolve(square)[2:]


def test_one_group_has_one_size() -> None:
    one, other = parts(6), parts(6)
    one[0].kept, other[0].kept = 3, 2
    with pytest.raises(DeploycheckError, match="cut to 3 and to 2"):
        tie(one, other)


def test_what_is_cut_is_not_split() -> None:
    cut = parts(6)
    cut[0].kept = 3
    with pytest.raises(DeploycheckError, match="3 of 6 are left would be split"):
        tie(cut, parts(3, 2))


@given(st.lists(st.integers(2, 6), min_size=1, max_size=6), st.data())
def test_groupings_of_the_same_sizes_get_the_same_parts(factors: list[int], data: st.DataObject) -> None:
    def grouped() -> Axis:
        cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(factors) - 1)))))
        bounds = [0, *[cut for cut in cuts if cut < len(factors)], len(factors)]
        return parts(*(math.prod(factors[a:b]) for a, b in itertools.pairwise(bounds)))

    whole, one, other = parts(*factors), grouped(), grouped()
    tie(one, whole)
    tie(whole, other)
    assert resolve(one) == resolve(other) == resolve(whole)
    assert sizes(one) == factors
    assert not any(part.fixed for part in resolve(one))


def test_a_long_chain_of_ties_is_followed() -> None:
    first = before = parts(6)
    for _ in range(5000):
        after = parts(6)
        tie(after, before)
        before = after
    fix([before])
    assert resolve(first) == resolve(before)
    assert resolve(first)[0].fixed


def test_a_part_that_is_joined_with_the_batch_is_found_again() -> None:
    (batch,) = export.symbolic_shape("batch")
    joined, apart = (Part(4 * batch), Part(8)), (Part(batch), Part(32))
    tie(apart, joined)
    tie(joined, (Part(batch), Part(4), Part(8)))
    assert sizes(apart) == sizes(joined) == [batch, 4, 8]
    assert not any(part.fixed for part in resolve(apart + joined))
