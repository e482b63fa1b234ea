"""What a project may have in its code: builders of models, a preprocessing step, and a compression method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from deploycheck.language.fields import Section
from deploycheck.stages.methods import Builder
from deploycheck.stages.model import Model
from deploycheck.stages.preprocess import Preprocessing
from deploycheck.stages.trainer import Trainer

CLASSES = 3


class NnxNet(nnx.Module):
    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.hidden = nnx.Linear(8, width, rngs=rngs)
        self.head = nnx.Linear(width, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(nnx.relu(self.hidden(self.norm(x))))


class LinenNet(linen.Module):
    width: int

    @linen.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = linen.BatchNorm(use_running_average=not train)(x)
        return linen.Dense(CLASSES)(linen.relu(linen.Dense(self.width)(x)))


Pair = tuple[dict[str, jax.Array], Callable[..., jax.Array]]


def _dense(width: int, key: jax.Array, dtype: str) -> Pair:
    first, second = jax.random.split(key)
    params = {
        "hidden": jax.random.normal(first, (8, width), dtype),
        "head": jax.random.normal(second, (width, CLASSES), dtype),
    }
    return params, lambda params, x: jax.nn.relu(x.astype(dtype) @ params["hidden"]) @ params["head"]


def plain_net(width: int, key: jax.Array, dtype: str = "float32") -> Pair:
    return _dense(width, key, dtype)


def net_with_bias(width: int, key: jax.Array) -> Pair:
    params, apply = _dense(width, key, "float32")
    return {**params, "bias": jnp.zeros(CLASSES)}, lambda params, x: apply(params, x) + params["bias"]


def wider_net(width: int, key: jax.Array) -> Pair:
    return _dense(2 * width, key, "float32")


def half_net(width: int, key: jax.Array) -> Pair:
    return _dense(width, key, "bfloat16")


def broken_net(width: int) -> int:
    return width


def _fit_halves(inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {"center": np.mean(inputs["x"], axis=0).astype(np.float32)}


def _apply_halves(fitted: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, jax.Array]:
    centered = jnp.asarray(inputs["x"]) - fitted["center"]
    return {"x": centered[:, :8] + centered[:, 8:]}


add_halves = Preprocessing("add_halves", _fit_halves, _apply_halves)


class RoundOptions(Section):
    digits: int = 1


class Round:
    """Rounds weights; a model that it has rounded doubles its outputs, so that its function is seen to be used."""

    name = "round"
    options = RoundOptions
    trains = False

    def compress(self, source: Model, options: RoundOptions, trainer: Trainer | None) -> Model:
        rounded = {name: jnp.round(array, options.digits) for name, array in source.weights.items()}
        return self._doubled(source).with_weights(rounded)

    def structure(self, source: Model, options: RoundOptions, build: Builder) -> Model:
        return self._doubled(source)

    def _doubled(self, source: Model) -> Model:
        def apply(params: Any, state: Any, inputs: Any) -> Any:
            return {name: 2 * array for name, array in source.apply(params, state, inputs).items()}

        return replace(source, apply=apply)


class Replace:
    """Puts a wider model in the place of its source, as a distillation would put a student."""

    name = "replace"
    options = Section
    trains = False

    def compress(self, source: Model, options: Section, trainer: Trainer | None) -> Model:
        raise NotImplementedError

    def structure(self, source: Model, options: Section, build: Builder) -> Model:
        return build("tests.steps.models:wider_net", {"width": 5})


ROUND, REPLACE = Round(), Replace()
