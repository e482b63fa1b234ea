"""Each property refuses a model with the fault that it is about, with a small input, and passes a good one."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.language.spec import Input
from deploycheck.properties import Domain, Property
from deploycheck.properties.batch_invariant import BATCH_INVARIANT
from deploycheck.properties.bounded import BOUNDED
from deploycheck.properties.deterministic import DETERMINISTIC
from deploycheck.properties.domain import make_domain
from deploycheck.properties.finite import FINITE
from deploycheck.properties.invariant_to import INVARIANT_TO
from deploycheck.properties.monotone_in import MONOTONE_IN
from deploycheck.properties.order_invariant import ORDER_INVARIANT
from deploycheck.properties.stable_under import STABLE_UNDER
from tests.properties.planted import EXAMPLES, GOOD, WEIGHTS, Planted, domain, tried

RANDOM = np.random.default_rng(0)
IMAGES = np.random.default_rng(1).uniform(size=(20, 3, 3, 1)).astype(np.float32)
TOTAL = Planted(lambda x: x.reshape(len(x), 9) @ (np.ones((9, 2), np.float32) * [1, -1]))
BYTES = np.array([[0, 0], [0, 135], [1, 255]], np.uint8)
WHITE_IS_ONE = Planted(lambda x: np.abs(x[:, 1:] - np.array([0.0, 255.0])) * -1)
"""Decides 0 for dark and 1 for light, by the nearer end of the range."""
FLIP: dict[str, Any] = {"transformation": "flip_horizontal"}
BRIGHTER: dict[str, Any] = {"transformation": {"scale": {"by": 2.0}}}
LOWER: dict[str, Any] = {"transformation": {"shift": {"by": [1, 0]}}, "tolerance": 0.01}

GOODS: list[tuple[Property, Planted, Domain, dict[str, Any]]] = [
    (BATCH_INVARIANT, GOOD, domain(), {}),
    (ORDER_INVARIANT, GOOD, domain(), {}),
    (DETERMINISTIC, GOOD, domain(), {}),
    (FINITE, GOOD, domain(), {}),
    (BOUNDED, Planted(lambda x: 1 / (1 + np.exp(-x @ WEIGHTS))), domain(), {"low": 0.0, "high": 1.0}),
    (MONOTONE_IN, Planted(lambda x: x[:, :1] ** 3), domain(), {"feature": 0}),
    (MONOTONE_IN, GOOD, domain(), {"feature": 3, "class": 2, "direction": "decreasing"}),
    (MONOTONE_IN, Planted(lambda x: x[:, None] ** 3), domain(EXAMPLES[:, 0]), {}),
    (STABLE_UNDER, Planted(lambda x: np.sign(x) * 10), domain(np.sign(EXAMPLES)), {"noise": 0.1}),
    (STABLE_UNDER, GOOD, domain(), {"noise": 1e-4, "tolerance": 0.01}),
    (INVARIANT_TO, TOTAL, domain(IMAGES), FLIP),
    (INVARIANT_TO, TOTAL, domain(IMAGES), BRIGHTER),
    (INVARIANT_TO, WHITE_IS_ONE, domain(BYTES), BRIGHTER),
    (INVARIANT_TO, WHITE_IS_ONE, domain(BYTES), {"transformation": {"scale": {"by": 2}}}),
    (STABLE_UNDER, WHITE_IS_ONE, domain(BYTES), {"noise": 0.02}),
]
BAD: list[tuple[Property, Planted, Domain, dict[str, Any], str]] = [
    (BATCH_INVARIANT, Planted(lambda x: (x - x.mean(axis=0)) @ WEIGHTS), domain(), {}, "alone"),
    (BATCH_INVARIANT, Planted(lambda x: x @ WEIGHTS + (len(x) > 4)), domain(), {}, "alone"),
    (ORDER_INVARIANT, Planted(lambda x: np.cumsum(x, axis=0) @ WEIGHTS), domain(), {}, "in order"),
    (DETERMINISTIC, Planted(lambda x: x @ WEIGHTS + RANDOM.normal()), domain(), {}, "the first time"),
    (FINITE, Planted(lambda x: np.where(x > -0.95, x, np.nan)), domain(), {}, "is nan"),
    (BOUNDED, GOOD, domain(), {"low": -2.0, "high": 2.0}, "expected -2 to 2"),
    (MONOTONE_IN, Planted(lambda x: x[:, :1] ** 2), domain(), {"feature": 0}, "expected increasing"),
    (MONOTONE_IN, GOOD, domain(), {"feature": 0, "class": 1}, "the probability of class 1"),
    (MONOTONE_IN, Planted(lambda x: x[:, None] ** 2), domain(EXAMPLES[:, 0]), {}, "expected increasing"),
    (STABLE_UNDER, Planted(lambda x: np.sin(1e4 * x[:, :2])), domain(), {"noise": 0.01}, "the decision is"),
    (INVARIANT_TO, Planted(lambda x: x[:, 0, ::2, 0] * 9), domain(IMAGES), FLIP, "the decision is"),
    (INVARIANT_TO, Planted(lambda x: x[:, 1, :, 0]), domain(IMAGES), LOWER, "before"),
]


@pytest.mark.parametrize(("property", "model", "data", "settings"), GOODS)
def test_it_holds_for_a_good_model(
    property: Property, model: Planted, data: Domain, settings: dict[str, Any], tmp_path: Path
) -> None:
    assert tried(property, model, tmp_path, data, **{"examples": 25, **settings}).violation == ""


@pytest.mark.parametrize(("property", "model", "data", "settings", "says"), BAD)
def test_it_refuses_a_model_with_the_fault(
    property: Property, model: Planted, data: Domain, settings: dict[str, Any], says: str, tmp_path: Path
) -> None:
    found = tried(property, model, tmp_path, data, **settings)
    assert says in found.violation
    assert found.counterexample


def test_a_batch_dependence_is_shown_with_two_plain_rows(tmp_path: Path) -> None:
    found = tried(BATCH_INVARIANT, Planted(lambda x: (x - x.mean(axis=0)) @ WEIGHTS), tmp_path)
    assert found.counterexample.startswith("a batch of 2: [0] test example 0 ")


def test_a_step_against_the_direction_is_shown_with_its_feature(tmp_path: Path) -> None:
    found = tried(MONOTONE_IN, Planted(lambda x: -x[:, :1]), tmp_path, feature=0)
    assert found.counterexample.startswith("x[0] raised from ")
    assert "in test example 0" in found.counterexample


@pytest.mark.parametrize(
    ("property", "settings"),
    [(MONOTONE_IN, {"feature": 0}), (MONOTONE_IN, {"feature": 0, "class": 9}), (BOUNDED, {"low": 0.0, "output": "z"})],
)
def test_a_setting_that_the_outputs_dont_fit_is_an_error(
    property: Property, settings: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(DeploycheckError):
        tried(property, GOOD, tmp_path, **settings)


def test_a_feature_that_never_varies_can_t_be_raised(tmp_path: Path) -> None:
    with pytest.raises(DeploycheckError, match=r"x\[1\] has the same value in all data, so nothing can rise"):
        tried(MONOTONE_IN, Planted(lambda x: -x[:, :1]), tmp_path, domain(EXAMPLES * [1, 0, 1, 1]), feature=1)


@pytest.mark.parametrize(
    ("shape", "feature", "says"),
    [
        ((), None, None),
        ((), [], None),
        ((4,), 3, None),
        ((2, 3), [1, 2], None),
        ((), 0, "has no such feature"),
        ((4,), None, "it doesn't say which feature of x"),
        ((4,), [], "has no such feature"),
        ((4,), 4, "has no such feature"),
        ((2, 3), 5, "has no such feature"),
        ((2, 3), [2, 0], "has no such feature"),
    ],
)
def test_the_feature_to_raise_is_one_of_the_input(shape: tuple[int, ...], feature: Any, says: str | None) -> None:
    settings = MONOTONE_IN.settings.model_validate({"feature": feature})
    mistakes = list(MONOTONE_IN.find_mistakes(settings, {"x": Input(shape=shape, dtype="float32")}))
    assert [mistake.what for mistake in mistakes] == ([] if says is None else [ANY])
    assert all(str(says) in mistake.what for mistake in mistakes)
    data = make_domain({"x": np.random.default_rng(0).uniform(size=(5, *shape))}, [], 4)
    if mistakes:
        with pytest.raises(DeploycheckError, match="has no feature"):
            MONOTONE_IN.cases(data, settings)
    else:
        MONOTONE_IN.cases(data, settings)


def test_a_decision_needs_several_outputs(tmp_path: Path) -> None:
    with pytest.raises(DeploycheckError) as caught:
        tried(STABLE_UNDER, Planted(lambda x: x[:, :1]), tmp_path, noise=0.1)
    assert "tolerance" in caught.value.hint
