"""Preprocessing: fitted on the training split, applied wherever the model runs. Importing this imports no JAX.

A step is a pair of functions: ``fit(inputs, **options)`` sees the training inputs as NumPy arrays and returns
what it learned as a dict of arrays; ``apply(fitted, inputs)`` works on JAX arrays, so that the same step runs
before the model in training, in the exported program and so in the server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploycheck.errors import DeploycheckError
from deploycheck.lazy import np

if TYPE_CHECKING:
    import jax

Arrays = Mapping[str, Any]


@dataclass(frozen=True)
class Preprocessing:
    """One preprocessing step: its name in a spec, and the two functions that the module's docstring describes.

    ``fills_missing`` says that no NaN is left in any input after it, so that a server may take NaN.
    """

    name: str
    fit: Callable[..., dict[str, np.ndarray]]
    apply: Callable[[Arrays, Arrays], dict[str, jax.Array]]
    fills_missing: bool = False


def _fit_scale(inputs: Arrays, *, by: float = 1.0, offset: float = 0.0) -> dict[str, np.ndarray]:
    del inputs
    return {"by": np.asarray(by, np.float32), "offset": np.asarray(offset, np.float32)}


def _apply_scale(fitted: Arrays, inputs: Arrays) -> dict[str, jax.Array]:
    import jax.numpy as jnp

    return {name: jnp.asarray(array) * fitted["by"] + fitted["offset"] for name, array in inputs.items()}


def _fit_standardize(inputs: Arrays, *, epsilon: float = 1e-6) -> dict[str, np.ndarray]:
    fitted: dict[str, np.ndarray] = {}
    for name, array in inputs.items():
        deviation = np.nanstd(array, axis=0, dtype=np.float64) + epsilon
        fitted[f"{name}.mean"] = np.asarray(np.nanmean(array, axis=0, dtype=np.float64), np.float32)
        fitted[f"{name}.deviation"] = np.asarray(deviation, np.float32)
    return fitted


def _apply_standardize(fitted: Arrays, inputs: Arrays) -> dict[str, jax.Array]:
    import jax.numpy as jnp

    return {
        name: (jnp.asarray(array) - fitted[f"{name}.mean"]) / fitted[f"{name}.deviation"]
        for name, array in inputs.items()
    }


def _fit_fill_missing(inputs: Arrays) -> dict[str, np.ndarray]:
    return {name: np.nanmedian(array, axis=0).astype(np.float32) for name, array in inputs.items()}


def _apply_fill_missing(fitted: Arrays, inputs: Arrays) -> dict[str, jax.Array]:
    import jax.numpy as jnp

    return {name: jnp.where(jnp.isnan(array), fitted[name], array) for name, array in inputs.items()}


scale = Preprocessing("scale", _fit_scale, _apply_scale)
"""Multiply by ``by``, then add ``offset``."""
standardize = Preprocessing("standardize", _fit_standardize, _apply_standardize)
"""Subtract each feature's mean over the training split and divide by its standard deviation."""
fill_missing = Preprocessing("fill_missing", _fit_fill_missing, _apply_fill_missing, fills_missing=True)
"""Replace each missing value (NaN) by its feature's median over the training split."""


Steps = Sequence[tuple[Preprocessing, Mapping[str, Any]]]
"""Steps in order, each with its options from the spec."""


def fit_all(steps: Steps, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Fit each step on the training inputs, after the steps before it were applied.

    Returns what they learned as ``preprocess/INDEX.STEP/NAME`` to array.
    """
    fitted: dict[str, np.ndarray] = {}
    for index, (step, options) in enumerate(steps):
        try:
            learned = step.fit(inputs, **options)
        except (TypeError, ValueError) as error:
            raise DeploycheckError(
                f"preprocessing step {step.name!r} can't be fitted with {dict(options)}: {error}"
            ) from error
        fitted |= {f"{_prefix(index, step)}{key}": np.asarray(array) for key, array in learned.items()}
        inputs = {key: np.asarray(array) for key, array in step.apply(learned, inputs).items()}
    return fitted


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
