from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from deploycheck.stages.methods import Method
from deploycheck.stages.methods.dead_zone import DEAD_ZONE, DeadZoneOptions
from deploycheck.stages.model import Model
from tests.stages.networks import plain


def no_builder(path: str | None, arguments: Any) -> Model:
    raise AssertionError(f"another model was built: {path}")


def test_it_is_a_method_that_does_not_train() -> None:
    assert isinstance(DEAD_ZONE, Method)
    assert not DEAD_ZONE.trains


def test_a_higher_threshold_makes_more_weights_zero() -> None:
    def zeros(threshold: str) -> int:
        options = DeadZoneOptions.model_validate({"range": 255, "threshold": threshold})
        return int(np.sum(DEAD_ZONE.compress(plain(0), options, None).params["kernel/qvalue"] == 0))

    assert zeros("0 %") < zeros("10 %") < zeros("20 %") < plain(0).params["kernel"].size


@pytest.mark.parametrize("options", [{"range": 8}, {"range": 255, "threshold": "10 %"}])
def test_the_structure_is_the_form_of_what_it_makes(options: dict[str, Any]) -> None:
    given = DeadZoneOptions.model_validate(options)
    made, form = DEAD_ZONE.compress(plain(0), given, None), DEAD_ZONE.structure(plain(1).form, given, no_builder)
    assert form.weights == made.form.weights


@pytest.mark.parametrize(
    ("options", "at"),
    [
        ({}, "range"),
        ({"range": 1}, "range"),
        ({"range": 32769}, "range"),
        ({"range": 25.5}, "range"),
        ({"range": 8, "threshold": "100 %"}, "threshold"),
        ({"range": 8, "threshold": 0.1}, "threshold"),
        ({"range": 8, "delta": "10 %"}, "delta"),
    ],
)
def test_options_that_it_does_not_have_are_refused(options: dict[str, Any], at: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DeadZoneOptions.model_validate(options)
    assert [error["loc"] for error in caught.value.errors()] == [(at,)]
