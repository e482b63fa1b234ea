"""The code that a user's spec names: a small model, its data, and two compression methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from deploycheck.language.fields import Section
from deploycheck.stages.model import Model
from deploycheck.stages.trainer import Trainer

CLASSES = 3
FEATURES = 4


def build(width: int, key: jax.Array) -> tuple[dict[str, jax.Array], Callable[..., jax.Array]]:
    first, second = jax.random.split(key)
    params = {
        "hidden": jax.random.normal(first, (FEATURES, width)),
        "out": jax.random.normal(second, (width, CLASSES)),
    }

    def apply(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return jax.nn.relu(x @ params["hidden"]) @ params["out"]

    return params, apply


def line(key: jax.Array) -> tuple[dict[str, jax.Array], Callable[..., jax.Array]]:
    return {"line": jax.random.normal(key, (FEATURES, CLASSES))}, lambda params, x: x @ params["line"]


def residual(depth: int, key: jax.Array) -> tuple[dict[str, Any], Callable[..., jax.Array]]:
    """Layers of which each changes its input more than the one after it."""
    keys = jax.random.split(key, depth + 1)
    layers = {f"layer{i}": {"w": jax.random.normal(keys[i], (FEATURES, FEATURES)) / 4.0**i} for i in range(depth)}

    def apply(params: dict[str, Any], x: jax.Array) -> jax.Array:
        for i in range(depth):
            x = x + jnp.tanh(x) @ params[f"layer{i}"]["w"]
        return x @ params["out"]["w"]

    return {**layers, "out": {"w": jax.random.normal(keys[depth], (FEATURES, CLASSES))}}, apply


def by_name() -> str:
    return "resnet50"


def clusters(rows: int) -> tuple[np.ndarray, np.ndarray, dict[str, list[str]]]:
    """Return numbers that are near their class's own, with a column to slice by."""
    labels = np.arange(rows) % CLASSES
    x = np.random.default_rng(0).normal(size=(rows, FEATURES)) + 4 * labels[:, None]
    return x.astype(np.float32), labels, {"half": [f"{row % 2}" for row in range(rows)]}


def doubles(rows: int) -> tuple[np.ndarray, np.ndarray]:
    x, labels, _ = clusters(rows)
    return x.astype(np.float64), labels


def one_class(rows: int) -> tuple[np.ndarray, np.ndarray]:
    x, labels, _ = clusters(rows)
    return x, np.full_like(labels, 2)


def with_a_constant(rows: int) -> tuple[np.ndarray, np.ndarray]:
    x, labels, _ = clusters(rows)
    x[:, 2] = 0.1
    return x, labels


def by_path(path: Any) -> Any:
    raise ValueError(f"given {type(path).__name__} {path}")


class Options(Section):
    """By how much."""

    by: float = 2.0


class Scaled:
    """A method that multiplies the output weights, and keeps what it is given."""

    options = Options
    given: ClassVar[list[tuple[float, Trainer | None]]] = []

    def __init__(self, name: str, *, trains: bool) -> None:
        self.name = name
        self.trains = trains

    def compress(self, source: Model, options: Options, trainer: Trainer | None) -> Model:
        self.given.append((options.by, trainer))
        params: Mapping[str, Any] = source.params
        return replace(source, params={**params, "out": jnp.asarray(params["out"]) * options.by})

    def structure(self, source: Model, options: Options, build: Any) -> Model:
        return source


PLAIN = Scaled("plain", trains=False)
TRAINS = Scaled("trains", trains=True)
