"""How far what a student gives is from what its teacher gives: a number for each example."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

Divergence = Callable[[jax.Array, jax.Array], jax.Array]
"""``divergence(student, teacher)`` says how far outputs are from each other, ``[batch]``, both ``[batch, ...]``."""


def softened_divergence(temperature: float) -> Divergence:
    """Return T^2 times the Kullback-Leibler divergence, in nats, of the student's softened classes from the teacher's.

    Classes are along the last axis; where there are further axes, it is the mean over them.
    """

    def divergence(student: jax.Array, teacher: jax.Array) -> jax.Array:
        softened = [jax.nn.log_softmax(logits / temperature, axis=-1) for logits in (student, teacher)]
        nats = optax.losses.kl_divergence_with_log_targets(*softened)
        return temperature**2 * _mean_per_example(nats)

    return divergence


def squared_difference(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Return the mean squared difference over all numbers of an example."""
    return _mean_per_example(jnp.square(student - teacher))


def _mean_per_example(values: jax.Array) -> jax.Array:
    return values.reshape(len(values), -1).mean(axis=1)
