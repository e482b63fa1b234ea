"""A model of which one layer, by its making, can't be rounded to 4 bits, and the rest can."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

CLASSES = 3
OUTLIER = 20.0
"""In 4 bits, the numbers beside it are rounded to zero; in 8 they aren't."""
HIDDEN, WIDTH = 64, 600


def build() -> tuple[dict[str, jax.Array], Callable[..., jax.Array]]:
    signs = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], (HIDDEN, WIDTH)), jnp.float32)
    params = {
        # Its last row meets the feature that is always 0.
        "sensitive": jnp.zeros((4, HIDDEN)).at[:CLASSES].set(jnp.eye(CLASSES, HIDDEN)).at[CLASSES].set(OUTLIER),
        "robust": signs,
        "head": signs[:CLASSES].T / WIDTH,
    }

    def apply(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return jax.nn.relu(x @ params["sensitive"]) @ params["robust"] @ params["head"]

    return params, apply


def examples(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return examples whose label says which feature is high; the last feature is always 0."""
    labels = np.arange(rows) % CLASSES
    x = 0.1 * np.abs(np.random.default_rng(0).normal(size=(rows, 4)))
    x[np.arange(rows), labels] += 2
    x[:, CLASSES] = 0
    return x.astype(np.float32), labels
