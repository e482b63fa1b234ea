"""Preprocessing: fitted on the training split, applied wherever the model runs. Importing this imports no JAX.

A step is a pair of functions: ``fit(inputs, **options)`` sees the training inputs as NumPy arrays and returns
what it learned as a dict of arrays; ``apply(fitted, inputs)`` works on JAX arrays, so that the same step runs
before the model in training, in the exported program and so in the server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deploycheck.errors import DeploycheckError
from deploycheck.lazy import np

if TYPE_CHECKING:
    import jax

Arrays = Mapping[str, Any]
MOST_NAMED = 5
"""Of the features of one input, this many are named at most."""


@dataclass(frozen=True)
class Preprocessing:
    """One preprocessing step: its name in a spec, and the two functions that the module's docstring describes.

    ``remark`` says what the user should know of the training inputs that the step is fitted on; empty for nothing.
    ``fills_missing`` says that no NaN is left in any input after it, so that a server may take NaN.
    """

    name: str
    fit: Callable[..., dict[str, np.ndarray]]
    apply: Callable[[Arrays, Arrays], dict[str, jax.Array]]
    remark: Callable[[Arrays], str] = field(default=lambda _: "")
    fills_missing: bool = False


def _fit_scale(inputs: Arrays, *, by: float = 1.0, offset: float = 0.0) -> dict[str, np.ndarray]:
    del inputs
    return {"by": np.asarray(by, np.float32), "offset": np.asarray(offset, np.float32)}


def _apply_scale(fitted: Arrays, inputs: Arrays) -> dict[str, jax.Array]:
    import jax.numpy as jnp

    return {name: jnp.asarray(array) * fitted["by"] + fitted["offset"] for name, array in inputs.items()}


def _fit_standardize(inputs: Arrays, *, epsilon: float = 0.0) -> dict[str, np.ndarray]:
    _refuse_features(inputs, lambda array: np.isinf(array).any(axis=0), "is infinite in a training example")
    _refuse_features(inputs, _is_never_there, "has no value in any training example")
    fitted: dict[str, np.ndarray] = {}
    for name, array in inputs.items():
        mean, deviation = _moments(array)
        fitted[f"{name}.mean"] = np.asarray(mean, np.float32)
        is_constant = _is_constant(len(array), mean, deviation)
        fitted[f"{name}.deviation"] = np.asarray(np.where(is_constant, 1.0, deviation + epsilon), np.float32)
    return fitted


def _moments(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each feature's mean and standard deviation, as float64."""
    exact = array.astype(np.float64)  # np.nanstd squares in the array's own type, whatever `dtype` says
    return np.nanmean(exact, axis=0), np.nanstd(exact, axis=0)


def _is_constant(count: int, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Return which features of ``count`` examples have one value in all, but for rounding; they are not scaled.

    The bound on rounding in the variance is scikit-learn's (Chan, Golub and LeVeque, The American Statistician 37,
    1983). A deviation that float32 can't tell from 0 beside the mean, or at all, is rounding too: the model computes
    in float32.
    """
    epsilon = np.finfo(np.float64).eps
    least = np.maximum(np.finfo(np.float32).eps * np.abs(mean), np.finfo(np.float32).tiny)
    rounding = count * epsilon * deviation**2 + (count * mean * epsilon) ** 2
    constant: np.ndarray = (deviation <= least) | (deviation**2 <= rounding)
    return constant


def _is_never_there(array: np.ndarray) -> np.ndarray:
    never: np.ndarray = np.isnan(array).all(axis=0)
    return never


def _refuse_features(inputs: Arrays, is_bad: Callable[[np.ndarray], np.ndarray], why: str) -> None:
    bad = _name_features(inputs, is_bad)
    if bad:
        raise ValueError(f"{bad} {why}")


def _name_features(inputs: Arrays, is_meant: Callable[[np.ndarray], np.ndarray]) -> str:
    """Return the features that are meant, as ``x[2], x[7]``, counted from 0; of many, the first of each input."""
    named: list[str] = []
    for name, array in inputs.items():
        found = np.argwhere(is_meant(array))
        named += [f"{name}[{', '.join(map(str, index))}]" if len(index) else name for index in found[:MOST_NAMED]]
        named += [f"and {len(found) - MOST_NAMED} more of {name}"] if len(found) > MOST_NAMED else []
    return ", ".join(named)


def _remark_constant(inputs: Arrays) -> str:
    constant = _name_features(inputs, lambda array: _is_constant(len(array), *_moments(array)))
    return f"constant in the training split, so standardize does not scale it: {constant}" if constant else ""


def _apply_standardize(fitted: Arrays, inputs: Arrays) -> dict[str, jax.Array]:
    import jax.numpy as jnp

    return {
        name: (jnp.asarray(array) - fitted[f"{name}.mean"]) / fitted[f"{name}.deviation"]
        for name, array in inputs.items()
    }


def _fit_fill_missing(inputs: Arrays) -> dict[str, np.ndarray]:
    _refuse_features(inputs, _is_never_there, "has no value in any training example")
    return {name: np.nanmedian(array, axis=0).astype(np.float32) for name, array in inputs.items()}


def _apply_fill_missing(fitted: Arrays, inputs: Arrays) -> dict[str, jax.Array]:
    import jax.numpy as jnp

    return {name: jnp.where(jnp.isnan(array), fitted[name], array) for name, array in inputs.items()}


scale = Preprocessing("scale", _fit_scale, _apply_scale)
"""Multiply by ``by``, then add ``offset``."""
standardize = Preprocessing("standardize", _fit_standardize, _apply_standardize, _remark_constant)
"""Subtract each feature's mean over the training split and divide by its standard deviation plus ``epsilon``.

A feature that is constant in the training split is divided by 1.
"""
fill_missing = Preprocessing("fill_missing", _fit_fill_missing, _apply_fill_missing, fills_missing=True)
"""Replace each missing value (NaN) by its feature's median over the training split."""


Steps = Sequence[tuple[Preprocessing, Mapping[str, Any]]]
"""Steps in order, each with its options from the spec."""


@dataclass(frozen=True)
class Fitted:
    """What steps learned, as ``preprocess/INDEX.STEP/NAME`` to array, and their remarks."""

    arrays: Mapping[str, np.ndarray]
    remarks: Sequence[str]


def fit_all(steps: Steps, inputs: Mapping[str, np.ndarray]) -> Fitted:
    """Fit each step on the training inputs, after the steps before it were applied."""
    fitted: dict[str, np.ndarray] = {}
    remarks: list[str] = []
    for index, (step, options) in enumerate(steps):
        try:
            learned = step.fit(inputs, **options)
        except (TypeError, ValueError) as error:
            raise DeploycheckError(
                f"preprocessing step {step.name!r} can't be fitted with {dict(options)}: {error}"
            ) from error
        fitted |= {f"{_prefix(index, step)}{key}": np.asarray(array) for key, array in learned.items()}
        remarks += filter(None, [step.remark(inputs)])
        inputs = {key: np.asarray(array) for key, array in step.apply(learned, inputs).items()}
    return Fitted(fitted, remarks)


def _prefix(index: int, step: Preprocessing) -> str:
    return f"preprocess/{index}.{step.name}/"


def apply_all(steps: Steps) -> Callable[[Arrays, Arrays], dict[str, jax.Array]]:
    """Return the function ``(fitted, inputs) -> inputs`` that runs the steps in order."""

    def preprocess(fitted: Arrays, inputs: Arrays) -> dict[str, jax.Array]:
        for index, (step, _) in enumerate(steps):
            prefix = _prefix(index, step)
            learned = {key.removeprefix(prefix): array for key, array in fitted.items() if key.startswith(prefix)}
            inputs = step.apply(learned, inputs)
        return dict(inputs)

    return preprocess
