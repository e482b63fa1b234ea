"""Checks that their metrics can't give are refused where they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploycheck.language import SpecErrors
from deploycheck.plan import find_impossible
from tests.planning import EXTENSIONS, HEAD, ROOT, plan, spec

PROMOTE = "promote: {model: digits, to: staging}\n"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            HEAD + "serve: {expect: {throughput: {threshold: '>= 9 /s', slices: {by: label}}}}\n",
            "throughput can't be sliced: it isn't measured on test examples",
        ),
        (
            HEAD.replace('missing_values: "== 0"', 'smallest_class: ">= 90 % of baseline"') + PROMOTE,
            "smallest_class can't be of baseline: there is one for all variants",
        ),
    ],
)
def test_a_check_that_its_metric_cannot_give_is_refused_at_its_place(text: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(SpecErrors) as refused:
        plan(text, tmp_path)
    (error,) = refused.value.errors
    assert error.what == what
    line = text.splitlines()[error.place.line - 1]
    assert line[error.place.column - 1 :].startswith(what.partition(" ")[0])


def test_all_impossible_checks_are_found_at_once(tmp_path: Path) -> None:
    sliced = "{threshold: '>= 9 /s', slices: {by: label}}"
    text = f"{HEAD}serve: {{expect: {{throughput: {sliced}, memory: {sliced.replace('>= 9 /s', '<= 1 GB')}}}}}\n"
    with pytest.raises(SpecErrors) as refused:
        plan(text, tmp_path)
    assert [error.what.partition(" ")[0] for error in refused.value.errors] == ["throughput", "memory"]


def test_all_that_the_example_asks_for_can_be_measured(tmp_path: Path) -> None:
    text = (ROOT / "specs" / "digits.yaml").read_text()
    digits = spec(text.replace("extends: standards/edge.yaml\n", ""), tmp_path)
    assert find_impossible(digits, EXTENSIONS) == []
