"""One small classifier in the three forms that a spec may name, and how models are put into canonical form here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx

from deploycheck.stages.model import Model, build_model

CLASSES = 3
LOGITS = ("logits",)
IMAGE = {"image": jax.ShapeDtypeStruct((2, 6, 6, 1), jnp.float32)}


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


def plain_net(key: jax.Array, width: int = 16) -> tuple[dict[str, jax.Array], Callable[..., jax.Array]]:
    first, second = jax.random.split(key)
    params = {
        "kernel": 0.1 * jax.random.normal(first, (36, width)),
        "head": 0.1 * jax.random.normal(second, (width, CLASSES)),
        "bias": jnp.zeros(CLASSES),
    }

    def apply(params: dict[str, jax.Array], image: jax.Array) -> jax.Array:
        hidden = jax.nn.relu(image.reshape(image.shape[0], -1) @ params["kernel"])
        return hidden @ params["head"] + params["bias"]

    return params, apply


BUILDERS: dict[str, Callable[..., Any]] = {"nnx": NnxNet, "linen": LinenNet, "function": plain_net}


def build(form: str, seed: int) -> Model:
    """Return the classifier in one of the forms."""
    return build_model(BUILDERS[form], {}, IMAGE, seed=seed, outputs=LOGITS)


def plain(seed: int) -> Model:
    """Return the classifier that is a pure function of a dict."""
    return build("function", seed)


def from_function(
    params: Any,
    function: Callable[..., Any],
    shape: tuple[int, ...],
    *,
    output: str = "logits",
    dtype: Any = jnp.float32,
) -> Model:
    """Return the model ``function(params, x)``, where one example of ``x`` has this shape."""
    inputs = {"x": jax.ShapeDtypeStruct((2, *shape), dtype)}
    return build_model(lambda: (params, function), {}, inputs, seed=0, outputs=(output,))


def check_training(model: Model, inputs: Any) -> Any:
    """Check that a step of training leaves all shapes as they are; return the gradients of the params."""

    @jax.jit
    def loss(params: Any) -> Any:
        outputs, state = model.train(params, model.state, inputs, jax.random.key(0))
        return jnp.square(outputs["logits"]).mean(), state

    gradients, state = jax.grad(loss, has_aux=True)(model.params)
    assert jax.tree.map(jnp.shape, gradients) == jax.tree.map(jnp.shape, model.params)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, model.state)
    return gradients
