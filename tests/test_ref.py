from __future__ import annotations

import pytest

from deploycheck.ref import Ref


@pytest.mark.parametrize(
    ("ref", "text"),
    [
        (Ref("data"), "data"),
        (Ref("model", ("int8",)), "model[int8]"),
        (Ref("comparison", ("int8", "baseline")), "comparison[int8,baseline]"),
    ],
)
def test_it_is_written_as_its_kind_with_its_variants(ref: Ref, text: str) -> None:
    assert str(ref) == text


def test_it_is_an_address_equal_refs_find_the_same_step() -> None:
    assert {Ref("model", ("int8",)): "found"}[Ref("model", ("int8",))] == "found"
    assert Ref("model", ("int8",)) != Ref("outputs", ("int8",))
    assert Ref("comparison", ("a", "b")) != Ref("comparison", ("b", "a"))


def test_refs_are_sorted_by_kind_then_by_variant() -> None:
    refs = [Ref("model", ("b",)), Ref("data"), Ref("model", ("a",))]
    assert sorted(refs) == [Ref("data"), Ref("model", ("a",)), Ref("model", ("b",))]
