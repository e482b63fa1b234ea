"""How big an artifact is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from deploycheck.checks.metric import metric
from deploycheck.language.vocabulary import Dimension
from deploycheck.verdict import Exact, Measurement

if TYPE_CHECKING:
    from deploycheck.store import Artifact

STAGES = ("train", "compress")


def bytes_of(artifact: Artifact) -> int:
    """Return the bytes of everything a server loads: program, weights and signature."""
    return sum(entry.size for entry in artifact.files.values())


@metric("size", dimension=Dimension.SIZE, direction="lower", stages=STAGES)
def size(artifact: Artifact) -> Measurement:
    """Bytes of the exported artifact."""
    return Measurement(Exact(bytes_of(artifact)))


@metric("size_ratio", dimension=Dimension.NUMBER, direction="lower", stages=["compress"])
def size_ratio(artifact: Artifact, reference_artifact: Artifact) -> Measurement:
    """Bytes of the exported artifact over those of the trained model's."""
    before, after = bytes_of(reference_artifact), bytes_of(artifact)
    return Measurement(Exact(after / before), note=f"{after:,} of {before:,} bytes")


@metric("parameters", dimension=Dimension.COUNT, direction="lower", stages=STAGES)
def parameters(artifact: Artifact) -> Measurement:
    """Number of trained weights, whatever their type; scales of quantised weights are not counted."""
    return Measurement(Exact(_count(_header(artifact))))


def _header(artifact: Artifact) -> dict[str, dict[str, list[int]]]:
    """Read the safetensors header: names and shapes, without the weights."""
    with artifact.file("weights.safetensors").open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, dict[str, list[int]]] = json.loads(file.read(length))
    return header


def _count(header: dict[str, dict[str, list[int]]]) -> int:
    total = 0
    for name, entry in header.items():
        quantized_scale = name.endswith("/scale") and name.removesuffix("/scale") + "/qvalue" in header
        if name.startswith("params/") and not quantized_scale:
            elements = 1
            for axis in entry["shape"]:
                elements *= axis
            total += elements
    return total
