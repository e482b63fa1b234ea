"""Models of the example specs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx


class Convolution(nnx.Module):
    """A 3×3 convolution over ``[b, h, w, c]`` as one matrix product over patches.

    On a CPU, XLA runs this and its gradient several times as fast as its own convolution.
    """

    def __init__(self, channels: int, features: int, rngs: nnx.Rngs) -> None:
        self.kernel = nnx.Linear(9 * channels, features, rngs=rngs)

    def __call__(self, image: jax.Array) -> jax.Array:
        """Return ``[b, h, w, features]``."""
        height, width = image.shape[1:3]
        padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifted = [padded[:, row : row + height, column : column + width] for row in range(3) for column in range(3)]
        return self.kernel(jnp.concatenate(shifted, axis=-1))


class ConvClassifier(nnx.Module):
    """Convolutions, each halving the image, then one dense layer: ``[b, h, w, c]`` to logits ``[b, classes]``."""

    def __init__(self, shape: Sequence[int], features: Sequence[int], classes: int, rngs: nnx.Rngs) -> None:
        height, width, channels = shape
        widths = [channels, *features]
        self.convolutions = nnx.List(Convolution(before, after, rngs) for before, after in pairwise(widths))
        scale = 2 ** len(features)
        self.dense = nnx.Linear((height // scale) * (width // scale) * widths[-1], classes, rngs=rngs)

    def __call__(self, image: jax.Array) -> jax.Array:
        """Return logits."""
        for convolution in self.convolutions:
            image = halve(nnx.relu(convolution(image)))
        return self.dense(image.reshape(image.shape[0], -1))


def halve(image: jax.Array) -> jax.Array:
    """Max-pool 2×2 by reshaping, which XLA runs faster on a CPU than a window reduction."""
    batch, height, width, channels = image.shape
    return image.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


def conv_classifier(shape: Sequence[int], features: Sequence[int], classes: int, rngs: nnx.Rngs) -> ConvClassifier:
    """Build the classifier for images of ``shape`` (height, width, channels)."""
    return ConvClassifier(shape, features, classes, rngs)
