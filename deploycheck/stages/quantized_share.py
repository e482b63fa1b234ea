"""How much of a model is quantised, read from what its weights are called. Doesn't import JAX."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

VALUE, SCALE, INPUT = "/qvalue", "/scale", "/input_scale"
"""Suffixes of the arrays that take the place of a quantised weight: its codes, their scales, and the scale of what it
is multiplied with, where that is calibrated.
"""
NAMED = 4
"""How many of the weights that stay in float are named."""


@dataclass(frozen=True)
class QuantizedShare:
    """The bytes that each parameter has in the float model, by name, and which of them are quantised."""

    sizes: Mapping[str, int]
    quantized: frozenset[str]

    @property
    def reached(self) -> int:
        """Bytes of the float model that were quantised."""
        return sum(self.sizes[name] for name in self.quantized)

    @property
    def total(self) -> int:
        """Bytes of the float model's parameters."""
        return sum(self.sizes.values())

    def sentence(self, verb: str) -> str:
        """Say how many bytes ``verb`` quantised, and which weights stay in float, the largest first."""
        left = sorted(self.sizes.keys() - self.quantized, key=lambda name: (-self.sizes[name], name))
        named = ", ".join(f"{name} ({self.sizes[name]:,})" for name in left[:NAMED])
        more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
        counted = f"{self.reached:,} of {self.total:,} bytes of parameters {verb} quantised"
        return counted + (f"; left in float: {named}{more}" if left else "")


def share_of(layout: Mapping[str, tuple[int, int]]) -> QuantizedShare:
    """Return the share of a model's params, given by name as how many numbers there are and the bytes of each.

    A quantised weight is counted as if each of its numbers took the bytes of its scale, which has the dtype that the
    weight had.
    """
    quantized = quantized_names(layout)
    parts = parts_of(quantized)
    sizes = {name: count * width for name, (count, width) in layout.items() if name not in parts}
    sizes |= {name: layout[name + VALUE][0] * layout[name + SCALE][1] for name in quantized}
    return QuantizedShare(sizes, quantized)


def quantized_names(names: Collection[str]) -> frozenset[str]:
    """Return the quantised weights among arrays of these names."""
    values, scales = ({name.removesuffix(it) for name in names if name.endswith(it)} for it in (VALUE, SCALE))
    return frozenset(values & scales)


def parts_of(quantized: Collection[str]) -> set[str]:
    """Return the names of the arrays that take the place of these weights."""
    return {name + suffix for name in quantized for suffix in (VALUE, SCALE, INPUT)}
