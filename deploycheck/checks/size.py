"""How big an artifact is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deploycheck.checks.metric import metric
from deploycheck.language.vocabulary import Dimension
from deploycheck.stages.quantized_share import INPUT, SCALE, VALUE, share_of
from deploycheck.verdict import Exact, Measurement

if TYPE_CHECKING:
    from deploycheck.store import Artifact
    from deploycheck.store.weights import Stored

STAGES = ("train", "compress")


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
    stored = _read_layout(artifact)
    return Measurement(Exact(sum(it.count for name, it in stored.items() if _is_trained(name, stored))))


@metric("quantized_share", dimension=Dimension.PROPORTION, direction="higher", stages=["compress"], sample=Exact)
def quantized_share(artifact: Artifact) -> Measurement:
    """Share of the trained weights that is quantised, of the bytes that they have in the float model."""
    stored = _read_layout(artifact)
    trained = {name.removeprefix("params/"): it for name, it in stored.items() if name.startswith("params/")}
    share = share_of({name: (it.count, it.width) for name, it in trained.items()})
    return Measurement(Exact(share.reached / share.total), note=share.sentence("are"))


@metric("sparsity", dimension=Dimension.PROPORTION, direction="higher", stages=STAGES, sample=Exact)
def sparsity(artifact: Artifact) -> Measurement:
    """Share of the trained weights' numbers that are zero, whatever their type."""
    from deploycheck.store.weights import read_weights

    weights = read_weights(artifact.file("weights.safetensors"))
    trained = [array for name, array in weights.items() if _is_trained(name, weights)]
    total, zeros = sum(array.size for array in trained), sum(int((array == 0).sum()) for array in trained)
    return Measurement(Exact(zeros / total), note=f"{zeros:,} of {total:,} parameters")


def _read_layout(artifact: Artifact) -> dict[str, Stored]:
    from deploycheck.store.weights import read_layout

    return read_layout(artifact.file("weights.safetensors"))


def _is_trained(name: str, stored: Mapping[str, Any]) -> bool:
    beside = [name.removesuffix(suffix) for suffix in (SCALE, INPUT) if name.endswith(suffix)]
    return name.startswith("params/") and not any(base + VALUE in stored for base in beside)
