from __future__ import annotations

import numpy as np
import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.stages.preprocess import Steps, apply_all, fill_missing, fit_all, scale, standardize


def test_preprocessing_learns_only_from_what_it_is_fitted_on() -> None:
    steps: Steps = [(fill_missing, {}), (scale, {"by": 2.0}), (standardize, {})]
    training = {"x": np.array([[1.0], [np.nan], [3.0]], np.float32)}
    fitted = fit_all(steps, training)
    out = np.asarray(apply_all(steps)(fitted, {"x": np.array([[2.0], [np.nan], [100.0]], np.float32)})["x"])
    assert out[0] == pytest.approx(0, abs=1e-5)
    assert out[1] == pytest.approx(0, abs=1e-5)
    assert out[2] == pytest.approx((200 - 4) / np.std([2, 4, 6]), rel=1e-3)


def test_what_a_step_learned_is_named_by_its_place_and_name() -> None:
    steps: Steps = [(scale, {"by": 2.0}), (scale, {"by": 3.0})]
    fitted = fit_all(steps, {"x": np.ones((2, 1), np.float32)})
    assert fitted["preprocess/0.scale/by"] == 2
    assert fitted["preprocess/1.scale/by"] == 3
    out = apply_all(steps)({**fitted, "params/kernel": np.zeros(1)}, {"x": np.ones((2, 1), np.float32)})
    np.testing.assert_array_equal(out["x"], [[6.0], [6.0]])


def test_a_step_with_wrong_options_is_named() -> None:
    with pytest.raises(DeploycheckError, match=r"preprocessing step 'scale' can't be fitted with \{'byy': 2\}"):
        fit_all([(scale, {"byy": 2})], {"x": np.ones((2, 1))})
