"""One small classifier in the forms a user may write it in, as networks with weights drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx

from deploycheck.serving.runtimes.xla import XLA
from deploycheck.stages.network import Network, TensorSpec

CLASSES = 3
INPUTS = {"image": TensorSpec((6, 6, 1), "float32")}


class NnxNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
        self.dense = nnx.Linear(6 * 6 * 4, CLASSES, rngs=rngs)

    def __call__(self, image: jax.Array) -> jax.Array:
        image = nnx.relu(self.norm(self.conv(image)))
        return self.dense(image.reshape(image.shape[0], -1))


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        image = linen.Conv(4, (3, 3))(image)
        image = linen.relu(linen.BatchNorm(use_running_average=True)(image))
        return linen.Dense(CLASSES)(image.reshape(image.shape[0], -1))


def from_tree(tree: Any, call: Callable[[Any, jax.Array], jax.Array]) -> Network:
    """Return the network of a tree of arrays and a function of it and of the image."""
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]

    def apply(weights: Any, inputs: Any) -> dict[str, jax.Array]:
        restored = jax.tree.unflatten(structure, [weights[name] for name in names])
        return {"logits": call(restored, inputs["image"])}

    return Network(dict(zip(names, (leaf for _, leaf in paths), strict=True)), apply)


def nnx_network(seed: int) -> Network:
    graph, state = nnx.split(NnxNet(nnx.Rngs(seed)))
    pure = nnx.to_pure_dict(state)

    def call(tree: Any, image: jax.Array) -> jax.Array:
        restored = jax.tree.map(lambda leaf: leaf, state)
        nnx.replace_by_pure_dict(restored, tree)
        logits: jax.Array = nnx.merge(graph, restored)(image)
        return logits

    return from_tree(pure, call)


def linen_network(seed: int) -> Network:
    module = LinenNet()
    return from_tree(module.init(jax.random.key(seed), jnp.zeros((2, 6, 6, 1))), module.apply)  # type: ignore[arg-type]


def plain_network(seed: int) -> Network:
    tree = {"kernel": 0.1 * jax.random.normal(jax.random.key(seed), (36, CLASSES)), "bias": jnp.zeros(CLASSES)}
    return from_tree(tree, lambda tree, image: image.reshape(image.shape[0], -1) @ tree["kernel"] + tree["bias"])


NETWORKS: dict[str, Callable[[int], Network]] = {
    "nnx": nnx_network,
    "linen": linen_network,
    "function": plain_network,
}


def export_all(folder: Path) -> dict[str, bytes]:
    """Export the classifier in every form; return what was written, by path."""
    for form, build in NETWORKS.items():
        (folder / form).mkdir(parents=True)
        XLA.export(build(0), INPUTS, "net", folder / form)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.glob("*/*")}
