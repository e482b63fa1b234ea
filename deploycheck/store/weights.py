"""The weights of a model as a file: safetensors, in which each array is stored in the form that takes fewest bytes.

An array of which many numbers are zero is stored as a bit for each number and the numbers that aren't; one of 4-bit
integers as two of them to a byte, because safetensors has no such type; one of 8-bit floats as bytes, because its
reader for NumPy knows none. The file's metadata says which arrays are stored so; all others are plain tensors, which
any reader of safetensors can load.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deploycheck.errors import DeploycheckError
from deploycheck.store.arrays import write_arrays

STORED = "deploycheck.stored"
"""The key of the file's metadata: a JSON object, array name to how it is stored."""
BITS, VALUES, NIBBLES, BYTES = "/@bits", "/@values", "/@nibbles", "/@bytes"
"""What the names of the tensors that stand for one array end with."""
OVERHEAD = 512
"""Bytes that naming one more tensor, and saying how it is stored, takes at most."""

_NAMES = {
    "BOOL": "bool",
    "BF16": "bfloat16",
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "C64": "complex64",
}
"""The types of safetensors that NumPy can have, by NumPy's names."""


@dataclass(frozen=True)
class Stored:
    """How one array is stored, and its shape and dtype when it is read."""

    form: Literal["plain", "sparse", "nibbles", "bytes"]
    shape: tuple[int, ...]
    dtype: str

    @property
    def count(self) -> int:
        """How many numbers the array has."""
        return math.prod(self.shape)

    @property
    def width(self) -> int:
        """How many bytes each number has when it is read."""
        return _dtype(self.dtype).itemsize


def write_weights(weights: Mapping[str, Any], file: Path) -> None:
    """Write weights (NumPy's or JAX's arrays) so that they take few bytes; the same weights give the same bytes.

    Raises ``OSError`` where the system refuses to write.
    """
    tensors: dict[str, np.ndarray] = {}
    stored: dict[str, Stored] = {}
    for name, given in weights.items():
        array = np.asarray(given, order="C")
        layout = Stored(_form_of(array), array.shape, array.dtype.name)
        tensors |= {name + suffix: part for suffix, part in _SPLIT[layout.form](array).items()}
        if layout.form != "plain":
            stored[name] = layout
    described = {name: asdict(layout) for name, layout in sorted(stored.items())}
    write_arrays(tensors, file, {STORED: json.dumps(described)} if described else None)


def read_weights(file: Path) -> dict[str, np.ndarray]:
    """Read what ``write_weights`` wrote; raise ``DeploycheckError`` where the tensors don't fit their description."""
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as opened:
        stored = _read_stored(opened.metadata(), file)
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
    for name, layout in stored.items():
        try:
            tensors[name] = _JOIN[layout.form](name, layout, tensors)
        except (KeyError, TypeError, ValueError) as error:
            raise DeploycheckError(f"{name} is not whole: {error}", where=str(file)) from error
    return tensors


def read_layout(file: Path) -> dict[str, Stored]:
    """Read the shape and dtype of every array, and none of the numbers."""
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as opened:
        stored = _read_stored(opened.metadata(), file)
        parts = {name + suffix for name in stored for suffix in (BITS, VALUES, NIBBLES, BYTES)}
        plain = {name: opened.get_slice(name) for name in opened.keys() if name not in parts}  # noqa: SIM118
        return stored | {
            name: Stored("plain", tuple(it.get_shape()), _NAMES[it.get_dtype()]) for name, it in plain.items()
        }


def _read_stored(metadata: Mapping[str, str] | None, file: Path) -> dict[str, Stored]:
    try:
        described = json.loads((metadata or {}).get(STORED, "{}"))
        return {name: Stored(it["form"], tuple(it["shape"]), it["dtype"]) for name, it in described.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DeploycheckError(f"its metadata {STORED} can't be read: {error}", where=str(file)) from error


def _form_of(array: np.ndarray) -> Literal["plain", "sparse", "nibbles", "bytes"]:
    """Return the form that takes fewest bytes."""
    if array.dtype.name in ("int4", "uint4"):
        return "nibbles"
    sparse = -(-array.size // 8) + np.count_nonzero(_numbers(array)) * array.itemsize + OVERHEAD
    if sparse < array.nbytes:
        return "sparse"
    return "bytes" if _is_float8(array.dtype) else "plain"


def _is_float8(dtype: np.dtype) -> bool:
    return dtype.name.startswith("float8")


def _dtype(name: str) -> np.dtype:
    import ml_dtypes

    return np.dtype(getattr(ml_dtypes, name, name))


def _numbers(array: np.ndarray) -> np.ndarray:
    """Return which bits there are: so a negative zero is kept, and types that NumPy doesn't know can be counted."""
    return array.reshape(-1).view(f"u{array.itemsize}") if array.itemsize in (1, 2, 4, 8) else array.reshape(-1)


def _split_sparse(array: np.ndarray) -> dict[str, np.ndarray]:
    present = _numbers(array) != 0
    values = array.reshape(-1)[present]
    return {BITS: np.packbits(present), VALUES: values.view(np.uint8) if _is_float8(values.dtype) else values}


def _join_sparse(name: str, layout: Stored, tensors: dict[str, np.ndarray]) -> np.ndarray:
    bits, values = tensors.pop(name + BITS), tensors.pop(name + VALUES).view(_dtype(layout.dtype))
    present = np.unpackbits(bits, count=layout.count).astype(bool)
    array = np.zeros(layout.count, values.dtype)
    array[present] = values
    return array.reshape(layout.shape)


def _split_nibbles(array: np.ndarray) -> dict[str, np.ndarray]:
    codes = array.reshape(-1).astype(np.int8).view(np.uint8) & 0xF
    pairs = np.concatenate([codes, np.zeros(len(codes) % 2, np.uint8)]).reshape(-1, 2)
    return {NIBBLES: pairs[:, 0] | pairs[:, 1] << 4}


def _join_nibbles(name: str, layout: Stored, tensors: dict[str, np.ndarray]) -> np.ndarray:
    pairs = tensors.pop(name + NIBBLES)
    codes = np.stack([pairs & 0xF, pairs >> 4], axis=-1).reshape(-1)
    if len(codes) != layout.count + layout.count % 2:
        raise ValueError(f"{len(codes)} codes for {layout.count} numbers")
    if layout.dtype == "int4":
        codes = ((codes ^ 8).astype(np.int8)) - np.int8(8)
    return codes[: layout.count].astype(_dtype(layout.dtype)).reshape(layout.shape)


def _join_bytes(name: str, layout: Stored, tensors: dict[str, np.ndarray]) -> np.ndarray:
    return tensors.pop(name + BYTES).view(_dtype(layout.dtype)).reshape(layout.shape)


_SPLIT: Mapping[str, Callable[[np.ndarray], dict[str, np.ndarray]]] = {
    "plain": lambda array: {"": array},
    "sparse": _split_sparse,
    "nibbles": _split_nibbles,
    "bytes": lambda array: {BYTES: array.reshape(-1).view(np.uint8)},
}
_JOIN: Mapping[str, Callable[[str, Stored, dict[str, np.ndarray]], np.ndarray]] = {
    "sparse": _join_sparse,
    "nibbles": _join_nibbles,
    "bytes": _join_bytes,
}
