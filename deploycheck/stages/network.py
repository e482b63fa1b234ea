"""A model to deploy: flat, named weights and one pure function of raw inputs. Doesn't import JAX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jax

Inputs = Mapping[str, Any]
"""Input name to array, ``[batch, ...]``."""
Outputs = Mapping[str, "jax.Array"]
"""Output name to array, ``[batch, ...]``."""
Weights = dict[str, "jax.Array"]
"""Weight name (its path in the model, ``params/conv/kernel``) to array."""


@dataclass(frozen=True)
class TensorSpec:
    """One input: its shape without the batch, its dtype by NumPy's name, and whether it may hold NaN."""

    shape: tuple[int, ...]
    dtype: str
    missing: bool = False


@dataclass(frozen=True)
class Network:
    """``apply(weights, inputs)`` gives the outputs by name, each ``[batch, ...]``, from raw inputs."""

    weights: Weights
    apply: Callable[[Weights, Inputs], Outputs]
