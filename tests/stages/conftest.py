"""One small classifier in the three forms a spec may name, with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from deploycheck.stages.model import Model, build_model

CLASSES = 3


class NnxNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.dense = nnx.Linear(6 * 6 * 4, CLASSES, rngs=rngs)

    def __call__(self, image: jax.Array) -> jax.Array:
        image = nnx.relu(self.norm(self.conv(image)))
        return self.dense(self.dropout(image.reshape(image.shape[0], -1)))


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, image: jax.Array, train: bool = False) -> jax.Array:
        image = linen.Conv(4, (3, 3))(image)
        image = linen.relu(linen.BatchNorm(use_running_average=not train)(image))
        image = linen.Dropout(0.2, deterministic=not train)(image.reshape(image.shape[0], -1))
        return linen.Dense(CLASSES)(image)


def plain_net(key: jax.Array) -> tuple[dict[str, jax.Array], Callable[..., jax.Array]]:
    first, second = jax.random.split(key)
    params = {
        "kernel": 0.1 * jax.random.normal(first, (36, 16)),
        "head": 0.1 * jax.random.normal(second, (16, CLASSES)),
        "bias": jnp.zeros(CLASSES),
    }

    def apply(params: dict[str, jax.Array], image: jax.Array) -> jax.Array:
        hidden = jax.nn.relu(image.reshape(image.shape[0], -1) @ params["kernel"])
        return hidden @ params["head"] + params["bias"]

    return params, apply


BUILDERS: dict[str, Callable[..., Any]] = {"nnx": NnxNet, "linen": LinenNet, "function": plain_net}


@pytest.fixture(params=list(BUILDERS))
def builder(request: pytest.FixtureRequest) -> Callable[[int], Model]:
    """Build the classifier in one of the forms, by seed."""
    example = {"image": np.zeros((2, 6, 6, 1), np.float32)}
    return lambda seed: build_model(BUILDERS[request.param], {}, example, seed, where="model")


@pytest.fixture(scope="session")
def stripes() -> tuple[np.ndarray, np.ndarray]:
    """300 noisy images whose class is the row a bright stripe lies in: learnable in a few epochs."""
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, 300)
    images = random.normal(0, 0.3, (300, 6, 6, 1)).astype(np.float32)
    images[np.arange(300), labels * 2] += 2.0
    return images, labels
