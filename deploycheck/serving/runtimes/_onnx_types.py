"""In which types an ONNX model holds its numbers. Imports neither JAX nor onnx: the engine needs no more than this.

Numbers that runtimes have no arithmetic for are held in a wider type: a float of fewer than 32 bits as float32, which
is rounded where the program converts to the narrow type; a 4-bit integer as one of 8 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

FLOAT, INT32, INT64, BOOL = np.dtype("float32"), np.dtype("int32"), np.dtype("int64"), np.dtype(bool)
NARROW_FLOATS = frozenset({"bfloat16", "float16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"})
HELD: Mapping[str, np.dtype[Any]] = {
    **dict.fromkeys(NARROW_FLOATS, FLOAT),
    "int4": np.dtype("int8"),
    "uint4": np.dtype("uint8"),
}
"""The types that are held in a wider one, by name."""
PLAIN = frozenset(
    {"bool", "float32", "float64", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
)


class NotInOnnx(Exception):
    """What ONNX, or its runtimes, have no form for, in a few words."""


def held_as(dtype: Any) -> np.dtype[Any]:
    """Return the type in which numbers of a type are held; raise ``NotInOnnx`` where there is none."""
    name: str = dtype.name
    if name in HELD:
        return HELD[name]
    if name not in PLAIN:
        raise NotInOnnx(f"numbers of type {name}")
    return np.dtype(name)
