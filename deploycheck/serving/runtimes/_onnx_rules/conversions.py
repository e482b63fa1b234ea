"""From one type of number to another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto

from deploycheck.serving.runtimes._onnx_graph import Graph, Rule, Tensor
from deploycheck.serving.runtimes._onnx_rules.elementwise import like
from deploycheck.serving.runtimes._onnx_types import FLOAT, HELD, NotInOnnx, held_as

NARROW: Mapping[str, int] = {
    "bfloat16": TensorProto.BFLOAT16,
    "float16": TensorProto.FLOAT16,
    "float8_e4m3fn": TensorProto.FLOAT8E4M3FN,
    "float8_e4m3fnuz": TensorProto.FLOAT8E4M3FNUZ,
    "float8_e5m2": TensorProto.FLOAT8E5M2,
    "float8_e5m2fnuz": TensorProto.FLOAT8E5M2FNUZ,
}
"""Floats of fewer than 32 bits, to which numbers are rounded and held as float32."""


def convert(graph: Graph, equation: Any, x: Tensor) -> Tensor:
    """Convert to another type; what doesn't fit into whole numbers becomes the nearest that does, as in XLA."""
    source, target = equation.invars[0].aval.dtype, equation.params["new_dtype"]
    if source == target:
        return x
    if target.name in NARROW:
        return rounded_to(graph, graph.cast(x, FLOAT), target.name)
    if target.name in HELD:
        raise NotInOnnx(f"to {target.name}")
    held = held_as(target)
    if held.kind in "iu" and x.dtype.kind == "f":
        limits = np.iinfo(held)
        low, high = (_inside(limit, x.dtype) for limit in (limits.min, limits.max))
        x = graph.add("Clip", x, like(graph, low, x), like(graph, high, x))
    return graph.cast(x, held)


def _inside(limit: int, dtype: np.dtype[Any]) -> float:
    """Return the float that is nearest to a limit of whole numbers, and not beyond it."""
    found = dtype.type(limit)
    return float(found if abs(int(found)) <= abs(limit) else np.nextafter(found, dtype.type(0)))


def rounded_to(graph: Graph, x: Tensor, narrow: str) -> Tensor:
    """Return float32 numbers as a narrower type rounds them, held as float32."""
    saturating: dict[str, Any] = {"saturate": 0} if narrow.startswith("float8") else {}
    return graph.add("Cast", graph.add("Cast", x, to=NARROW[narrow], **saturating), to=TensorProto.FLOAT)


def reduce_precision(graph: Graph, equation: Any, x: Tensor) -> Tensor:
    """Round to as many bits as bfloat16 or float16 have."""
    bits = (equation.params["exponent_bits"], equation.params["mantissa_bits"])
    if bits == (8, 23):
        return x
    if bits not in ((8, 7), (5, 10)) or x.dtype != FLOAT:
        raise NotInOnnx(f"to {bits[0]} and {bits[1]} bits")
    return rounded_to(graph, x, "bfloat16" if bits == (8, 7) else "float16")


RULES: Mapping[str, Rule] = {"convert_element_type": convert, "reduce_precision": reduce_precision}
