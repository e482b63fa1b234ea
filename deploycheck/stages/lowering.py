"""Convolutions and pooling in a form that XLA runs faster, with equal results, in a program that is trained.

On a CPU, XLA takes a naive kernel for the gradient of a convolution inside a loop, such as an epoch under
``lax.scan``: 8 to 23 times slower than the same gradient by matrix products. So before the gradient is taken, the
traced program is rewritten. The user's code isn't touched. ``benchmarks/train.py`` measures what is gained.

- A convolution becomes one product over patches (im2col: Chellapilla, Puri and Simard, High Performance Convolutional
  Neural Networks for Document Processing, 2006).
- One of many channels stays as it is, because XLA's own kernel is faster; its gradients are written as convolutions
  that have this kernel too. With yet more channels, one of 3×3 is computed by Winograd's filtering.
- Pooling becomes a reduction over strided slices. After a convolution of few channels, the strides are taken of its
  patches instead, so that what pooling slices, and the gradient that belongs to it, is never in memory as a whole.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from deploycheck.stages import winograd
from deploycheck.stages.tracing import bind, called, rewritten

FASTER_ON = frozenset({"cpu"})
"""Elsewhere XLA has good kernels for both."""

FEW_CHANNELS = 4
"""An image of at most so many channels has small patches: their product costs less than moving its results."""

MANY_CHANNELS = 32
"""From so many channels on, of image and result, products cost more than the sums of Winograd's filtering.

For a convolution alone, ``benchmarks/convolutions.py`` finds both forms about equal at 32 and Winograd's faster from 64
on; in a network (``benchmarks/train.py``), it is faster at 32 already.
"""

LEFT_WHOLE = frozenset({"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "remat", "remat2", "checkpoint"})
"""What has a derivative of its own, or a say in what is kept for it."""

ELEMENTWISE = frozenset({"add", "sub", "mul", "max", "min", "neg", "tanh", "logistic", "exp", "integer_pow", "square"})
"""What may be between a convolution and its pooling; so may relu, which has a derivative of its own."""

Grid = tuple[slice, ...]
"""Some places of an image ``[n, ..., c]``: a slice for each of its axes but the first and the last."""
_EVERYWHERE: Grid = (slice(None),)


def lowered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function with the same results that is faster to train, on the device that this process uses."""
    return rewritten(function, _Lowering()) if jax.default_backend() in FASTER_ON else function


class _Postponed:
    """An image ``[n, ..., c]`` that is computed where it is used: as a whole, or at the places of a grid."""

    def __init__(self, compute: Callable[[Grid], jax.Array], axes: int) -> None:
        self._compute = compute
        self._everywhere = _EVERYWHERE * axes
        self._is_computed = False

    def whole(self) -> jax.Array:
        # The array isn't kept: a loop's body must not see it. Where it is computed twice, XLA makes one of both.
        self._is_computed = True
        return self._compute(self._everywhere)

    def at(self, grid: Grid) -> jax.Array:
        """Return the image at these places; cut out of the whole where that is computed anyway."""
        return _cut(self.whole(), grid) if self._is_computed else self._compute(grid)


class _Lowering:
    """Rules for a traced program; its values are arrays, and postponed images."""

    primitives = frozenset(
        {"conv_general_dilated", "reduce_window_max", "reduce_window_sum", *ELEMENTWISE, *LEFT_WHOLE}
    )

    def plain(self, value: Any) -> Any:
        return value.whole() if isinstance(value, _Postponed) else value

    def unstack(self, value: Any) -> tuple[Any, Callable[[Any], Any]]:
        return self.plain(value), lambda piece: piece

    def apply(self, equation: Any, operands: Sequence[Any]) -> Any:
        after = {
            it.aval.shape for it, value in zip(equation.invars, operands, strict=True) if isinstance(value, _Postponed)
        }
        if after == {equation.outvars[0].aval.shape} and _is_for_each_value(equation):
            return _for_each_value(equation, operands)
        name = equation.primitive.name
        if name in _REDUCTIONS and isinstance(operands[0], _Postponed) and _is_tiling(equation):
            return functools.reduce(_REDUCTIONS[name][0], [operands[0].at(grid) for grid in _tiles(equation)])
        operands = [self.plain(operand) for operand in operands]
        if name == "conv_general_dilated" and _is_plain_convolution(equation):
            return _lower_convolution(equation, *operands)
        if name in _REDUCTIONS and _is_plain_window(equation):
            reduction, neutral = _REDUCTIONS[name]
            return functools.reduce(reduction, _window_slices(equation, operands[0], neutral))
        return bind(equation, operands)


def _is_for_each_value(equation: Any) -> bool:
    """Whether an equation computes each value of an image from the values at its place alone."""
    if equation.primitive.name in ELEMENTWISE:
        result = equation.outvars[0].aval
        return all(operand.aval.ndim in (0, result.ndim) for operand in equation.invars)
    return equation.primitive.name == "custom_jvp_call" and _source(equation) == _source_of_relu()


def _source(equation: Any) -> str:
    """Return where the body of a call comes from: function, file and line; no other function has the same."""
    return str(called(equation).jaxpr.debug_info.func_src_info)


@functools.cache
def _source_of_relu() -> str:
    return _source(jax.make_jaxpr(jax.nn.relu)(0.0).eqns[0])


def _for_each_value(equation: Any, operands: Sequence[Any]) -> Any:
    axes = equation.outvars[0].aval.ndim - 2

    def compute(grid: Grid) -> jax.Array:
        pieces = [it.at(grid) if isinstance(it, _Postponed) else _cut(jnp.asarray(it), grid) for it in operands]
        result: jax.Array = bind(equation, pieces) if equation.primitive.name in ELEMENTWISE else jax.nn.relu(*pieces)
        return result

    result = _Postponed(compute, axes)
    return [result] if equation.primitive.multiple_results else result


def _cut(array: jax.Array, grid: Grid) -> jax.Array:
    """Return the places of a grid; a scalar, and an axis along which there is only one value, are for all of them."""
    if array.ndim == 0 or all(piece == slice(None) for piece in grid):
        return array
    chosen = [range(n)[piece] if n > 1 else range(1) for n, piece in zip(array.shape[1:-1], grid, strict=True)]
    starts, ends = [it.start for it in chosen], [it[-1] + 1 for it in chosen]
    first, *_, last = array.shape
    return lax.slice(array, (0, *starts, 0), (first, *ends, last), (1, *(it.step for it in chosen), 1))


def _is_plain_convolution(equation: Any) -> bool:
    known = equation.params
    floats = all(jnp.issubdtype(operand.aval.dtype, jnp.floating) for operand in equation.invars)
    return floats and known["feature_group_count"] == known["batch_group_count"] == max(known["lhs_dilation"]) == 1


def _lower_convolution(equation: Any, image: jax.Array, kernel: jax.Array) -> Any:
    numbers = equation.params["dimension_numbers"]
    product = functools.partial(_product, equation, image, kernel)
    axes = image.ndim - 2
    if image.shape[numbers.lhs_spec[1]] <= FEW_CHANNELS:
        is_channels_last = numbers.out_spec == (0, axes + 1, *range(1, axes + 1))
        return _Postponed(product, axes) if is_channels_last else product(_EVERYWHERE * axes)
    if _has_fast_kernel(equation):
        convolve = _by_winograd if _has_costly_products(equation) else _with_other_gradients
        image, kernel = _channels_last(image, numbers.lhs_spec), _kernel_last(kernel, numbers)
        return _channels_as_in(convolve(equation, image, kernel), numbers)
    return product(_EVERYWHERE * axes)


def _product(equation: Any, image: jax.Array, kernel: jax.Array, grid: Grid) -> jax.Array:
    """Return a convolution at some places, as a product of patches, ``[n, ..., k * c]``, and kernel, ``[k * c, f]``."""
    known, numbers = equation.params, equation.params["dimension_numbers"]
    kernel = _kernel_last(kernel, numbers)
    patches = _patches(equation, _channels_last(image, numbers.lhs_spec), kernel.shape[:-2], grid)
    # As a matrix: of more axes, XLA would move the gradient in memory before it sums over them.
    product = lax.dot_general(
        patches.reshape(-1, patches.shape[-1]),
        kernel.reshape(-1, kernel.shape[-1]),
        (((1,), (0,)), ((), ())),
        precision=known["precision"],
        preferred_element_type=known["preferred_element_type"],
    ).reshape(*patches.shape[:-1], -1)
    return _channels_as_in(product.astype(equation.outvars[0].aval.dtype), numbers)


def _patches(equation: Any, image: jax.Array, sizes: Sequence[int], grid: Grid) -> jax.Array:
    """Return what the kernel sees of an image ``[n, ..., c]`` at each place of a grid, ``[n, ..., k * c]``."""
    known = equation.params
    image = lax.pad(image, jnp.zeros((), image.dtype), ((0, 0, 0), *((*pad, 0) for pad in known["padding"]), (0, 0, 0)))
    return jnp.concatenate(_shifted(image, sizes, known["window_strides"], known["rhs_dilation"], grid), axis=-1)


def _channels_last(image: jax.Array, spec: Sequence[int]) -> jax.Array:
    """Return an image as ``[n, ..., c]`` whose axes are where ``spec`` (batch, channels, space) says."""
    batch, channels, *space = spec
    return jnp.transpose(image, (batch, *space, channels))


def _kernel_last(kernel: jax.Array, numbers: Any) -> jax.Array:
    """Return a kernel as ``[..., c, features]``."""
    features, channels, *space = numbers.rhs_spec
    return jnp.transpose(kernel, (*space, channels, features))


def _channels_as_in(image: jax.Array, numbers: Any) -> jax.Array:
    """Return an image ``[n, ..., c]`` with its axes where those of the results are."""
    batch, channels, *space = numbers.out_spec
    order = dict(zip((batch, *space, channels), range(image.ndim), strict=True))
    return jnp.transpose(image, [order[axis] for axis in range(image.ndim)])


def _shifted(
    image: jax.Array, sizes: Sequence[int], strides: Sequence[int], dilation: Sequence[int], grid: Grid
) -> list[jax.Array]:
    """Return what each place of a window sees of an image ``[n, ..., c]``, in the order of the window's places."""
    moves = []
    for extent, size, stride, apart, piece in zip(image.shape[1:-1], sizes, strides, dilation, grid, strict=True):
        reached = extent - (size - 1) * apart
        moves.append([range(at * apart, at * apart + reached, stride)[piece] for at in range(size)])
    first, *_, last = image.shape
    return [
        lax.slice(
            image,
            (0, *(it.start for it in place), 0),
            (first, *(it[-1] + 1 for it in place), last),
            (1, *(it.step for it in place), 1),
        )
        for place in itertools.product(*moves)
    ]


def _has_fast_kernel(equation: Any) -> bool:
    """Whether XLA has a fast kernel for a convolution and for those that are its gradients."""
    known, (image, kernel) = equation.params, (operand.aval for operand in equation.invars)
    window = [kernel.shape[axis] for axis in known["dimension_numbers"].rhs_spec[2:]]
    return (
        image.dtype == kernel.dtype == equation.outvars[0].aval.dtype == jnp.float32
        and len(window) == 2
        and math.prod(window) > 1
        and max(known["window_strides"]) == max(known["rhs_dilation"]) == 1
        and all(0 <= pad < size for pads, size in zip(known["padding"], window, strict=True) for pad in pads)
    )


def _with_other_gradients(equation: Any, image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return the convolution of ``[n, h, w, c]`` and ``[h, w, c, f]``; its gradients are convolutions as well.

    All of them have the channels last, because XLA has its fast kernel for this order alone.
    """
    known = equation.params
    run = functools.partial(
        lax.conv_general_dilated,
        window_strides=(1, 1),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=known["precision"],
    )

    @jax.custom_vjp
    def convolve(image: jax.Array, kernel: jax.Array) -> jax.Array:
        return run(image, kernel, padding=known["padding"])

    def forward(image: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        return convolve(image, kernel), (image, kernel)

    def backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
        image, kernel = kept
        sizes = kernel.shape[:2]
        around = [(size - 1 - low, size - 1 - high) for size, (low, high) in zip(sizes, known["padding"], strict=True)]
        of_image = run(gradient, _in_memory(lax.rev(kernel, (0, 1)), (0, 1, 3, 2)), padding=around)
        # The kernel's gradient sums over the batch, as a convolution does over channels; its window is a result's size.
        of_kernel = run(_in_memory(image, (3, 1, 2, 0)), _in_memory(gradient, (1, 2, 0, 3)), padding=known["padding"])
        return of_image, jnp.transpose(of_kernel, (1, 2, 0, 3))

    convolve.defvjp(forward, backward)
    result: jax.Array = convolve(image, kernel)
    return result


def _in_memory(array: jax.Array, order: Sequence[int]) -> jax.Array:
    """Return an array with its axes in another order, and moved so: XLA has no fast kernel for one that isn't."""
    moved: jax.Array = lax.optimization_barrier(jnp.transpose(array, order))
    return moved


def _has_costly_products(equation: Any) -> bool:
    """Whether a convolution with a fast kernel is faster by Winograd's filtering."""
    kernel, numbers = equation.invars[1].aval, equation.params["dimension_numbers"]
    features, channels, *window = (kernel.shape[axis] for axis in numbers.rhs_spec)
    return window == [winograd.SIZE] * 2 and min(channels, features) >= MANY_CHANNELS


def _by_winograd(equation: Any, image: jax.Array, kernel: jax.Array) -> jax.Array:
    result: jax.Array = winograd.convolve(image, kernel, equation.params["padding"], equation.params["precision"])
    return result


def _is_plain_window(equation: Any) -> bool:
    known, (operand,) = equation.params, equation.invars
    return (
        jnp.issubdtype(operand.aval.dtype, jnp.floating)
        and operand.aval.ndim > 2
        and max(known["base_dilation"]) == max(known["window_dilation"]) == 1
        and known["window_dimensions"][0] == known["window_dimensions"][-1] == 1
        and known["window_strides"][0] == known["window_strides"][-1] == 1
        and tuple(known["padding"][0]) == tuple(known["padding"][-1]) == (0, 0)
    )


def _is_tiling(equation: Any) -> bool:
    """Whether the windows have no place in common, and none outside of the image."""
    known = equation.params
    return (
        _is_plain_window(equation)
        and tuple(known["window_dimensions"]) == tuple(known["window_strides"])
        and not any(map(sum, known["padding"]))
    )


def _tiles(equation: Any) -> list[Grid]:
    """Return, for each place of a window, where that place is in all windows."""
    sizes = equation.params["window_dimensions"][1:-1]
    counts = equation.outvars[0].aval.shape[1:-1]
    pieces = [
        [slice(at, at + (count - 1) * size + 1, size) for at in range(size)]
        for size, count in zip(sizes, counts, strict=True)
    ]
    return list(itertools.product(*pieces))


def _window_slices(equation: Any, image: jax.Array, neutral: float) -> list[jax.Array]:
    known = equation.params
    image = lax.pad(image, jnp.asarray(neutral, image.dtype), [(*pad, 0) for pad in known["padding"]])
    sizes, strides = known["window_dimensions"][1:-1], known["window_strides"][1:-1]
    return _shifted(image, sizes, strides, [1] * len(sizes), _EVERYWHERE * len(sizes))


def _greater(first: jax.Array, second: jax.Array) -> jax.Array:
    """Return the greater of two, and of equals the first alone has the gradient, as in a reduction of windows."""
    return lax.select((first >= second) | (first != first), first, second)


_REDUCTIONS: dict[str, tuple[Callable[[jax.Array, jax.Array], jax.Array], float]] = {
    "reduce_window_max": (_greater, -math.inf),
    "reduce_window_sum": (lax.add, 0.0),
}
"""How two places of a window become one, and what a place outside of the image counts as."""
