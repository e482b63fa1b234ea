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


class SpeakerClassifier(nnx.Module):
    """Frames of varying number, ``[b, n, d]``, to logits ``[b, classes]``: layers on windows of three, and a mean."""

    def __init__(self, dimensions: int, width: int, depth: int, classes: int, rngs: nnx.Rngs) -> None:
        widths = [dimensions, *[width] * depth]
        self.windows = nnx.List(nnx.Linear(3 * before, after, rngs=rngs) for before, after in pairwise(widths))
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.out = nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, frames: jax.Array, present: jax.Array) -> jax.Array:
        """Return logits; ``present``, ``[b, n]``, says which frames there are."""
        there = present[..., None].astype(frames.dtype)
        for window in self.windows:
            padded = jnp.pad(frames * there, ((0, 0), (1, 1), (0, 0)))
            frames = nnx.relu(window(jnp.concatenate([padded[:, :-2], padded[:, 1:-1], padded[:, 2:]], axis=-1)))
        mean = (frames * there).sum(axis=1) / there.sum(axis=1)
        return self.out(self.dropout(mean))


def speaker_classifier(dimensions: int, width: int, depth: int, classes: int, rngs: nnx.Rngs) -> SpeakerClassifier:
    """Build the classifier of speakers."""
    return SpeakerClassifier(dimensions, width, depth, classes, rngs)


class Dense(nnx.Module):
    """Dense layers: features ``[b, features]`` to logits ``[b, classes]``."""

    def __init__(self, features: int, hidden: Sequence[int], classes: int, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List(nnx.Linear(before, after, rngs=rngs) for before, after in pairwise([features, *hidden]))
        self.out = nnx.Linear([features, *hidden][-1], classes, rngs=rngs)

    def __call__(self, features: jax.Array) -> jax.Array:
        """Return logits."""
        for layer in self.layers:
            features = nnx.relu(layer(features))
        return self.out(features)


def dense_classifier(features: int, hidden: Sequence[int], classes: int, rngs: nnx.Rngs) -> Dense:
    """Build the classifier of ``features`` numbers."""
    return Dense(features, hidden, classes, rngs)
