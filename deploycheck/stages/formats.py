"""Formats of weights: each reads a file, or a folder, as named arrays. Importing this imports no JAX.

The name of an array that is nested has all parts, joined by ``/``: ``conv/kernel``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploycheck.lazy import np


@dataclass(frozen=True)
class WeightFormat:
    """A format: its name in a spec, and a function that reads a file or folder as arrays by name."""

    name: str
    read: Callable[[Path], Mapping[str, Any]]


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors.flax import load_file  # NumPy's own reader has no bfloat16

    arrays: dict[str, Any] = load_file(path)
    return arrays


def _read_npz(path: Path) -> Mapping[str, Any]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def _read_orbax(path: Path) -> Mapping[str, Any]:
    """Read a checkpoint that orbax's ``StandardCheckpointer`` or ``PyTreeCheckpointer`` wrote."""
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer() as checkpointer:
        return _flat(checkpointer.restore(path.resolve()))


def _read_msgpack(path: Path) -> Mapping[str, Any]:
    """Read what ``flax.serialization.to_bytes`` or ``msgpack_serialize`` wrote."""
    from flax.serialization import msgpack_restore

    return _flat(msgpack_restore(path.read_bytes()))


def _flat(tree: Any) -> dict[str, Any]:
    from deploycheck.stages.model import flatten

    return flatten(tree)[0]


SAFETENSORS = WeightFormat("safetensors", _read_safetensors)
NPZ_WEIGHTS = WeightFormat("npz", _read_npz)
ORBAX = WeightFormat("orbax", _read_orbax)
MSGPACK = WeightFormat("msgpack", _read_msgpack)
