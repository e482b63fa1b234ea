"""The model the servers of these tests serve, and the same in numpy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deploycheck.serving.runtimes.xla import XLA
from deploycheck.serving.signature import Signature, TensorMetadata
from deploycheck.stages.network import Network, TensorSpec
from deploycheck.store import write_manifest

KEY = "0" * 64
KERNEL = np.random.default_rng(7).normal(size=(16, 3)).astype(np.float32)
SIGNATURE = Signature(
    model="digits",
    inputs=(TensorMetadata("image", "FP32", (4, 4, 1)),),
    outputs=(TensorMetadata("logits", "FP32", (3,)),),
)


def dense(weights: Mapping[str, jax.Array], inputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    image = inputs["image"]
    return {"logits": image.reshape(image.shape[0], -1) @ weights["params/kernel"]}


def expected(images: np.ndarray) -> np.ndarray:
    """Return the logits the model must give."""
    return images.reshape(len(images), -1) @ KERNEL


def write_artifact(folder: Path, *, kind: str = "model", meta: Mapping[str, Any] | None = None) -> Path:
    """Export the model into ``folder`` as an artifact, and return the folder."""
    network = Network({"params/kernel": jnp.asarray(KERNEL)}, dense)
    XLA.export(network, {"image": TensorSpec((4, 4, 1), "float32")}, "digits", folder)
    write_manifest(folder, kind, KEY, meta or {})
    return folder


def flip_a_byte(path: Path) -> None:
    """Damage a file in its middle, its size unchanged."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
