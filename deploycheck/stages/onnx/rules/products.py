"""Matrix products and convolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from deploycheck.errors import DeploycheckError
from deploycheck.stages.onnx.graph import Node, Rule
from deploycheck.stages.onnx.values import namespace, operands

Padding = list[tuple[int, int]]


def _matmul(node: Node, a: Any, b: Any) -> Any:
    del node
    a, b = operands(a, b)
    return namespace(a, b).matmul(a, b)


def _gemm(node: Node, a: Any, b: Any, c: Any = None) -> Any:
    settings = node.attributes
    product = jnp.matmul(jnp.transpose(a) if settings["transA"] else a, jnp.transpose(b) if settings["transB"] else b)
    product = product if settings["alpha"] == 1 else settings["alpha"] * product
    if c is None:
        return product
    return product + (c if settings["beta"] == 1 else settings["beta"] * c)


def _einsum(node: Node, *values: Any) -> Any:
    return jnp.einsum(node.attributes["equation"].replace(" ", ""), *operands(*values))


def _matmul_integer(node: Node, a: Any, b: Any, a_zero: Any = None, b_zero: Any = None) -> Any:
    del node
    return lax.convert_element_type(jnp.matmul(_shifted(a, a_zero, -2), _shifted(b, b_zero, -1)), jnp.int32)


def _shifted(x: Any, zero: Any, axis: int) -> Any:
    """Return whole numbers without their zero point, which is one number, or one for each row or column."""
    wide = jnp.asarray(x).astype(jnp.int32)
    if zero is None:
        return wide
    zero = jnp.asarray(zero).astype(jnp.int32)
    return wide - (zero if zero.ndim != 1 or axis == -1 else jnp.expand_dims(zero, -1))


def _conv_integer(node: Node, x: Any, kernel: Any, x_zero: Any = None, kernel_zero: Any = None) -> Any:
    wide = _shifted(x, x_zero, -1)
    kernel = jnp.asarray(kernel).astype(jnp.int32)
    if kernel_zero is not None:
        kernel = kernel - jnp.reshape(kernel_zero.astype(jnp.int32), (-1,) + (1,) * (kernel.ndim - 1))
    return _conv(node, wide, kernel)


def _conv(node: Node, x: Any, kernel: Any, bias: Any = None) -> Any:
    """Convolve ``x [n, c, ...]`` with ``kernel [features, c / groups, ...]``."""
    settings, rank = node.attributes, kernel.ndim - 2
    strides = settings.get("strides") or (1,) * rank
    dilations = settings.get("dilations") or (1,) * rank
    result = lax.conv_general_dilated(
        jnp.asarray(x),
        jnp.asarray(kernel),
        strides,
        padding(settings, x.shape[2:], kernel.shape[2:], strides, dilations),
        rhs_dilation=dilations,
        dimension_numbers=_layout(rank),
        feature_group_count=settings["group"],
    )
    return result if bias is None else result + jnp.reshape(bias, (-1,) + (1,) * rank)


def _conv_transpose(node: Node, x: Any, kernel: Any, bias: Any = None) -> Any:
    """Spread ``x [n, c, ...]`` by ``kernel [c, features / groups, ...]``: the gradient of a convolution."""
    settings, rank, groups = node.attributes, kernel.ndim - 2, node.attributes["group"]
    strides = settings.get("strides") or (1,) * rank
    dilations = settings.get("dilations") or (1,) * rank
    extra = settings.get("output_padding") or (0,) * rank
    spans = [(size - 1) * apart + 1 for size, apart in zip(kernel.shape[2:], dilations, strict=True)]
    pads = _transposed_padding(settings, x.shape[2:], spans, strides, extra)
    taken, features = kernel.shape[:2]
    # [c, f/g, ...] to [f, c/g, ...], each group by itself, and the window turned round.
    kernel = jnp.reshape(kernel, (groups, taken // groups, features, *kernel.shape[2:])).swapaxes(1, 2)
    kernel = jnp.flip(jnp.reshape(kernel, (groups * features, taken // groups, *kernel.shape[3:])), range(2, rank + 2))
    result = lax.conv_general_dilated(
        jnp.asarray(x),
        kernel,
        (1,) * rank,
        [
            (span - 1 - before, span - 1 - after + more)
            for span, (before, after), more in zip(spans, pads, extra, strict=True)
        ],
        lhs_dilation=strides,
        rhs_dilation=dilations,
        dimension_numbers=_layout(rank),
        feature_group_count=groups,
    )
    return result if bias is None else result + jnp.reshape(bias, (-1,) + (1,) * rank)


def _transposed_padding(
    settings: Mapping[str, Any],
    extents: Sequence[int],
    spans: Sequence[int],
    strides: Sequence[int],
    extra: Sequence[int],
) -> Padding:
    """Return what is cut off each axis of the full result."""
    wanted = settings.get("output_shape")
    how = settings["auto_pad"]
    if not wanted and how not in ("SAME_UPPER", "SAME_LOWER"):
        return given_padding(settings, len(spans))
    wanted = wanted or [extent * stride for extent, stride in zip(extents, strides, strict=True)]
    pads = []
    for extent, stride, span, more, size in zip(extents, strides, spans, extra, wanted, strict=True):
        total = max(0, stride * (extent - 1) + more + span - size)
        less, rest = total // 2, total - total // 2
        pads.append((less, rest) if how == "SAME_UPPER" else (rest, less))
    return pads


def given_padding(settings: Mapping[str, Any], rank: int) -> Padding:
    """Return the padding that a node states."""
    pads = settings.get("pads") or (0,) * (2 * rank)
    return list(zip(pads[:rank], pads[rank:], strict=True))


def padding(
    settings: Mapping[str, Any],
    extents: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> Padding:
    """Return the padding of each axis that a window moves along: the stated one, or what ``auto_pad`` asks for."""
    match settings["auto_pad"]:
        case "VALID":
            return [(0, 0)] * len(window)
        case "SAME_UPPER" | "SAME_LOWER" as side:
            pads = []
            for extent, size, stride, apart in zip(extents, window, strides, dilations, strict=True):
                total = max(0, (-(-extent // stride) - 1) * stride + (size - 1) * apart + 1 - extent)
                less, rest = total // 2, total - total // 2
                pads.append((less, rest) if side == "SAME_UPPER" else (rest, less))
            return pads
        case _:
            return given_padding(settings, len(window))


def _layout(rank: int) -> tuple[str, str, str]:
    if rank not in (1, 2, 3):
        raise DeploycheckError(f"a convolution over {rank} axes isn't supported")
    space = "DHW"[3 - rank :]
    return f"NC{space}", f"OI{space}", f"NC{space}"


RULES: Mapping[str, Rule] = {
    "Conv": _conv,
    "ConvInteger": _conv_integer,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MatMulInteger": _matmul_integer,
}
