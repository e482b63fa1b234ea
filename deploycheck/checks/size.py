"""How big an artifact is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from deploycheck.checks.metric import metric
from deploycheck.language.vocabulary import Dimension
from deploycheck.verdict import Exact, Measurement

if TYPE_CHECKING:
    from deploycheck.store import Artifact

STAGES = ("train", "compress")
NAMED = 4
"""How many of the weights that stay in float are named."""


def bytes_of(artifact: Artifact) -> int:
    """Return the bytes of everything a server loads: program, weights and signature."""
    return sum(entry.size for entry in artifact.files.values())


@metric("size", dimension=Dimension.SIZE, direction="lower", stages=STAGES, sample=Exact, lowest=1.0)
def size(artifact: Artifact) -> Measurement:
    """Bytes of the exported artifact."""
    return Measurement(Exact(bytes_of(artifact)))


@metric("size_ratio", dimension=Dimension.NUMBER, direction="lower", stages=["compress"], sample=Exact, lowest=1e-9)
def size_ratio(artifact: Artifact, reference_artifact: Artifact) -> Measurement:
    """Bytes of the exported artifact over those of the trained model's."""
    before, after = bytes_of(reference_artifact), bytes_of(artifact)
    return Measurement(Exact(after / before), note=f"{after:,} of {before:,} bytes")


@metric("parameters", dimension=Dimension.COUNT, direction="lower", stages=STAGES, sample=Exact, lowest=1.0)
def parameters(artifact: Artifact) -> Measurement:
    """Number of trained weights, whatever their type; scales of quantised weights are not counted."""
    shapes = _read_shapes(artifact)
    counts = [math.prod(shape) for name, shape in shapes.items() if _is_trained(name, shapes)]
    return Measurement(Exact(sum(counts)))


@metric("quantized_share", dimension=Dimension.PROPORTION, direction="higher", stages=["compress"], sample=Exact)
def quantized_share(artifact: Artifact) -> Measurement:
    """Share of the trained weights' numbers that are stored as int8."""
    shapes = _read_shapes(artifact)
    counts = {name: math.prod(shape) for name, shape in shapes.items() if _is_trained(name, shapes)}
    quantized = sum(count for name, count in counts.items() if name.endswith("/qvalue"))
    left = sorted((name for name in counts if not name.endswith("/qvalue")), key=lambda name: -counts[name])
    named = ", ".join(name.removeprefix("params/") for name in left[:NAMED])
    more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
    note = f"{quantized:,} of {sum(counts.values()):,} parameters" + (f"; in float: {named}{more}" if left else "")
    return Measurement(Exact(quantized / sum(counts.values())), note=note)


def _read_shapes(artifact: Artifact) -> dict[str, list[int]]:
    """Read the shape of every weight, and none of the weights themselves."""
    from safetensors import safe_open

    with safe_open(artifact.file("weights.safetensors"), framework="numpy") as weights:
        return {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118 - not a mapping


def _is_trained(name: str, shapes: dict[str, list[int]]) -> bool:
    is_scale = name.endswith("/scale") and name.removesuffix("scale") + "qvalue" in shapes
    return name.startswith("params/") and not is_scale
