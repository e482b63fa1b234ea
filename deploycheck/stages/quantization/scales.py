"""Which weights are quantised, to which type, and which of their numbers share a scale."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping
from typing import Any

import jax.numpy as jnp
import qwix

from deploycheck.errors import DeploycheckError
from deploycheck.language.errors import did_you_mean
from deploycheck.stages.methods.quantize import BITS, PerGroup, QuantizeOptions
from deploycheck.stages.quantization.uses import Use
from deploycheck.stages.quantized_share import SCALE, VALUE

TYPES: Mapping[str, Any] = {"int8": jnp.int8, "int4": jnp.int4, "fp8": jnp.float8_e4m3fn}
HIGHEST: Mapping[Any, int] = {jnp.dtype("int8"): 127, jnp.dtype("int4"): 7}
"""The largest magnitude of which there are codes of both signs."""


def chosen_uses(uses: Mapping[str, Use], names: list[str], options: QuantizeOptions) -> dict[str, Use]:
    """Return the uses of the weights that the options don't keep in float; ``names`` are all weights.

    Raises ``DeploycheckError`` for a pattern that matches no weight, and for weights that can't be cut into groups.
    """
    for key, patterns in {"keep": options.keep, **options.types}.items():
        for pattern in patterns:
            if not fnmatch.filter(names, pattern):
                raise DeploycheckError(f"`{key}`: no weight is called {pattern!r}", hint=did_you_mean(pattern, names))
    kept = {name for pattern in options.keep for name in fnmatch.filter(names, pattern)}
    chosen = {name: use for name, use in uses.items() if name not in kept and type_of(name, options)}
    if isinstance(options.per, PerGroup):
        _check_groups(chosen, options.per.group)
    return chosen


def type_of(name: str, options: QuantizeOptions) -> str | None:
    """Return the type that a weight gets; None for one that no pattern matches.

    Raises ``DeploycheckError`` where patterns of two types with equally many bits match it.
    """
    found = [
        type for type, patterns in options.types.items() if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    ]
    most = [type for type in found if BITS[type] == BITS[found[-1]]]
    if len(most) > 1:
        what = f"`weights`: {name} would be both {' and '.join(most)}"
        raise DeploycheckError(what, hint="change the patterns so that one of these types has it")
    return most[0] if most else None


def _check_groups(uses: Mapping[str, Use], group: int) -> None:
    sizes = {name: use.shape[use.grouped] for name, use in uses.items() if use.grouped is not None}
    uneven = [f"{name} sums over {size}" for name, size in sizes.items() if size % group]
    if uneven:
        raise DeploycheckError(
            f"weights can't be cut into groups of {group}: {', '.join(uneven)}",
            hint="choose a group that divides these numbers, or name the weights under `keep`",
        )


def quantized(name: str, weight: Any, use: Use, options: QuantizeOptions) -> dict[str, Any]:
    """Return the two arrays that take a weight's place: its codes, and their scales in its own dtype."""
    channels, groups = use.channels, {}
    if options.per == "tensor":
        channels = use.taken
    elif isinstance(options.per, PerGroup) and use.grouped is not None:
        groups = {use.grouped: options.per.group}
    codes, scale = _nearest(weight, jnp.dtype(TYPES[str(type_of(name, options))]), channels, groups)
    return {name + VALUE: codes, name + SCALE: scale}


def nearest_like(weight: Any, codes: Any, scale: Any) -> tuple[Any, Any]:
    """Return the codes and scales that rounding a weight at once gives, in the form of these codes and scales."""
    sizes = list(enumerate(zip(weight.shape, scale.shape, strict=True)))
    channels = tuple(axis for axis, (size, count) in sizes if count == size)
    return _nearest(weight, codes.dtype, channels, {axis: s // n for axis, (s, n) in sizes if 1 < n < s})


def _nearest(weight: Any, dtype: Any, channels: Collection[int], groups: Mapping[int, int]) -> tuple[Any, Any]:
    # Codes are found in float32 at least: the quotient of two bfloat16 numbers has only 8 bits.
    wide = weight.astype(jnp.promote_types(weight.dtype, jnp.float32))
    array = qwix.quantize(wide, dtype, channelwise_axes=channels, tiled_axes=groups, scale_dtype=weight.dtype)
    return array.qvalue, array.scale


def symmetric(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return quantised params whose integer codes are at most ``HIGHEST`` in magnitude.

    The largest weight is half-way between two codes. If it is negative, the one that it gets depends on how XLA
    compiles the division; the lower of the two is not used here.
    """
    integers = {name for name, array in params.items() if name.endswith(VALUE) and array.dtype in HIGHEST}
    return {
        name: jnp.maximum(array, -HIGHEST[array.dtype]) if name in integers else array for name, array in params.items()
    }
