from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from deploycheck.errors import DeploycheckError
from deploycheck.stages.preprocess import Preprocessing, Steps, apply_all, fill_missing, fit_all, scale, standardize


def test_preprocessing_learns_only_from_what_it_is_fitted_on() -> None:
    steps: Steps = [(fill_missing, {}), (scale, {"by": 2.0}), (standardize, {})]
    training = {"x": np.array([[1.0], [np.nan], [3.0]], np.float32)}
    fitted = fit_all(steps, training).arrays
    out = np.asarray(apply_all(steps)(fitted, {"x": np.array([[2.0], [np.nan], [100.0]], np.float32)})["x"])
    assert out[0] == pytest.approx(0, abs=1e-5)
    assert out[1] == pytest.approx(0, abs=1e-5)
    assert out[2] == pytest.approx((200 - 4) / np.std([2, 4, 6]), rel=1e-3)


def test_what_a_step_learned_is_named_by_its_place_and_name() -> None:
    steps: Steps = [(scale, {"by": 2.0}), (scale, {"by": 3.0})]
    fitted = fit_all(steps, {"x": np.ones((2, 1), np.float32)}).arrays
    assert fitted["preprocess/0.scale/by"] == 2
    assert fitted["preprocess/1.scale/by"] == 3
    out = apply_all(steps)({**fitted, "params/kernel": np.zeros(1)}, {"x": np.ones((2, 1), np.float32)})
    np.testing.assert_array_equal(out["x"], [[6.0], [6.0]])


def test_a_step_with_wrong_options_is_named() -> None:
    with pytest.raises(DeploycheckError, match=r"preprocessing step 'scale' can't be fitted with \{'byy': 2\}"):
        fit_all([(scale, {"byy": 2})], {"x": np.ones((2, 1))})


def standardized(training: np.ndarray, other: np.ndarray) -> np.ndarray:
    fitted = fit_all([(standardize, {})], {"x": training}).arrays
    return np.asarray(apply_all([(standardize, {})])(fitted, {"x": other})["x"])


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-3, -7.0, 1e8, 3e30, 1e-30])
@pytest.mark.parametrize("count", [2, 1000])
def test_a_feature_that_is_constant_in_training_is_not_scaled(value: float, count: int) -> None:
    training = np.full((count, 1), value, np.float32)
    assert standardized(training, training + np.float32(1))[0, 0] == pytest.approx(
        (training[0, 0] + 1) - training[0, 0]
    )


def test_a_feature_whose_values_differ_by_rounding_alone_is_constant() -> None:
    training = np.array([[0.3, 1e-40], [0.1 + 0.2, 0.0], [np.nextafter(np.float32(0.3), 1), 0.0]], np.float32)
    out = standardized(training, np.array([[1.3, 1.0]], np.float32))
    np.testing.assert_allclose(out, [[1.0, 1.0]], rtol=1e-5)


@given(st.lists(st.floats(-1000, 1000, width=32), min_size=2, max_size=20))
def test_features_are_scaled_as_in_scikit_learn(values: list[float]) -> None:
    training = np.array(values, np.float32)[:, None]
    scaler = StandardScaler().fit(training.astype(np.float64))
    fitted = standardize.fit({"x": training})
    np.testing.assert_allclose(fitted["x.mean"], scaler.mean_, rtol=1e-5, atol=1e-37)
    deviation = np.std(training, dtype=np.float64)
    if deviation == 0 or deviation > 1e-6 * np.abs(training).max() + 1e-30:  # float32 can't tell others from a constant
        np.testing.assert_allclose(fitted["x.deviation"], scaler.scale_, rtol=1e-5)


def test_constant_features_are_named() -> None:
    training = {"x": np.array([[1, 2, 3], [1, 5, 3]], np.float32), "image": np.zeros((2, 3, 3)), "age": np.arange(2.0)}
    (remark,) = fit_all([(standardize, {})], training).remarks
    assert remark == (
        "constant in the training split, so standardize does not scale it: x[0], x[2], "
        "image[0, 0], image[0, 1], image[0, 2], image[1, 0], image[1, 1], and 4 more of image"
    )
    assert fit_all([(standardize, {})], {"age": np.arange(2.0)}).remarks == []


@pytest.mark.parametrize(
    ("step", "column", "says"),
    [
        (standardize, [np.nan, np.nan], r"x\[1\] has no value in any training example"),
        (fill_missing, [np.nan, np.nan], r"x\[1\] has no value in any training example"),
        (standardize, [np.inf, 1], r"x\[1\] is infinite in a training example"),
    ],
)
def test_a_feature_from_which_nothing_can_be_learned_is_refused_by_name(
    step: Preprocessing, column: list[float], says: str
) -> None:
    training = {"x": np.stack([np.arange(2.0), np.array(column)], axis=1)}
    with pytest.raises(DeploycheckError, match=says):
        fit_all([(step, {})], training)
