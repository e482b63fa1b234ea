"""GPTQ: a weight is rounded row by row, and what each row loses is made up for by those that are not rounded yet.

For a product ``x @ w`` the codes q are to have a small squared error |x w - x q|² over the inputs x of examples. Its
Hessian, 2 xᵀx, says how the rows of w can stand in for each other. Frantar et al., GPTQ: Accurate Post-Training
Quantization for Generative Pre-trained Transformers, 2022. The scales are those of rounding to nearest. A convolution
is a product of its patches. qwix has the same algorithm, as a Python loop over the rows that takes minutes to compile.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deploycheck.errors import DeploycheckError
from deploycheck.stages.examples import Examples
from deploycheck.stages.methods.quantize import Gptq
from deploycheck.stages.quantization.arithmetic import QuantizedWeight
from deploycheck.stages.quantization.aware import Meet
from deploycheck.stages.quantization.calibration import first_examples, run_on
from deploycheck.stages.quantization.scales import HIGHEST
from deploycheck.stages.quantization.uses import Use
from deploycheck.stages.quantized_share import SCALE, VALUE

DAMPING = 0.01
"""The share of the mean of a Hessian's diagonal that is added to the diagonal."""
MOST_ROWS = 16_384
"""The Hessian of a weight with more rows would take more than a gigabyte."""
BLOCK = 128
"""Rows are rounded in blocks; those after a block are changed once for all of it."""


Run = Callable[[Mapping[str, Any], Meet, Mapping[str, Any]], Any]
"""``run(numbers, meet, inputs)`` evaluates the float model; ``meet`` gets each weight with the numbers of its rows."""


def round_by_gptq(
    uses: Mapping[str, Use],
    weights: Mapping[str, jax.Array],
    stored: Mapping[str, jax.Array],
    examples: Examples,
    how: Gptq,
    run: Run,
) -> dict[str, jax.Array]:
    """Return other codes for the weights that inputs are known of; the names are those of ``stored``.

    ``weights`` are float, and ``stored`` has their codes to nearest and the scales. A layer that meets nothing but
    zeros is left out, and so is a weight whose products have not the form ``x @ w``, or with too many rows. Raises
    ``DeploycheckError`` where there are fewer examples than asked for, an input isn't finite, or all are left out.
    """
    chosen = first_examples(examples, how.examples, "gptq")
    hessians = Hessians({name: use for name, use in uses.items() if use.multiplied and Rows(use).count <= MOST_ROWS})
    run_on(lambda inputs: run(hessians.numbers, hessians.watch, inputs), chosen)
    broken = [name for name, squares in hessians.sums.items() if not np.isfinite(squares).all()]
    if broken:
        raise DeploycheckError(
            f"`gptq`: on the first {how.examples} training examples the inputs of {', '.join(broken)} are not finite",
            hint="check the data, and the trained weights, for values that are not finite",
        )
    codes = {}
    for name, squares in hessians.sums.items():
        if squares.any():
            part = QuantizedWeight.of(stored[name + VALUE], stored[name + SCALE])
            codes[name + VALUE] = _with_feedback(weights[name], part, Rows(uses[name]), squares)
    if not codes:
        raise DeploycheckError(
            "`gptq`: no weight of a product `x @ w` or a convolution has inputs other than 0",
            hint="leave `gptq` out",
        )
    return codes


def _with_feedback(weight: jax.Array, nearest: QuantizedWeight, rows: Rows, squares: np.ndarray) -> jax.Array:
    """Return the codes of all layers of a weight."""
    highest = HIGHEST[nearest.codes.dtype]
    whole = nearest.spread(range(weight.ndim))
    layers = zip(*map(rows.split, (weight, whole.scales, whole.codes)), squares, strict=True)
    codes = [
        with_feedback(layer, scales, products, highest) if products.any() else before.astype(jnp.float32)
        for layer, scales, before, products in layers
    ]
    joined: jax.Array = rows.join(jnp.stack(codes)).astype(nearest.codes.dtype)
    return joined


@dataclass(frozen=True)
class Rows:
    """A weight as the matrices of its layers: ``[layers, rows, columns]``, where a product sums over the rows."""

    use: Use

    @property
    def _order(self) -> list[int]:
        first = [*self.use.taken, *sorted(self.use.summed)]
        return [*first, *(axis for axis in range(len(self.use.shape)) if axis not in first)]

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return math.prod(self.use.shape[axis] for axis in self.use.taken)

    @property
    def count(self) -> int:
        """How many rows a layer has."""
        return math.prod(self.use.shape[axis] for axis in self.use.summed)

    def split(self, array: Any) -> Any:
        """Return an array of the weight's shape as matrices."""
        return array.transpose(self._order).reshape(self.layers, self.count, -1)

    def join(self, matrices: Any) -> Any:
        """Return matrices as an array of the weight's shape."""
        shape = [self.use.shape[axis] for axis in self._order]
        return matrices.reshape(shape).transpose(np.argsort(self._order))

    def numbered(self, start: int) -> np.ndarray:
        """Return the number of each row, from ``start``: of the weight's shape, but for its columns one index."""
        columns = len(self.use.shape) - len(self.use.taken) - len(self.use.summed)
        shape = [self.use.shape[axis] for axis in self._order[: len(self.use.shape) - columns]]
        numbers = np.arange(start, start + self.layers * self.count, dtype=np.int32)
        return numbers.reshape(*shape, *[1] * columns).transpose(np.argsort(self._order))


class Hessians:
    """Sums of ``xᵀx`` over the inputs x of each layer of weights, half of their Hessians. Filled by ``note``."""

    def __init__(self, uses: Mapping[str, Use]) -> None:
        self._lock = threading.Lock()  # JAX calls back from threads of its own
        self.numbers: dict[str, np.ndarray] = {}
        self.sums: dict[str, np.ndarray] = {}
        self._layers: list[np.ndarray] = []
        starts = [0]
        for name, use in uses.items():
            rows = Rows(use)
            self.numbers[name] = rows.numbered(starts[-1])
            self.sums[name] = np.zeros((rows.layers, rows.count, rows.count), np.float32)
            self._layers += list(self.sums[name])
            starts += [starts[-1] + rows.count * (layer + 1) for layer in range(rows.layers)]
        self._starts = np.array(starts)

    def watch(self, equation: Any, activation: jax.Array, weight: QuantizedWeight, side: int) -> jax.Array:
        """Note the activation that meets a weight whose rows are numbered, and return it."""
        met = None if weight.inputs is None else inputs_of(equation, activation, weight.inputs, side)
        if met is not None:
            inputs, numbers = met
            jax.debug.callback(self._note, numbers, inputs.T @ inputs)
        return activation

    def _note(self, numbers: Any, products: Any) -> None:
        """Add ``xᵀx``, ``[k, k]``, of inputs that are multiplied with these rows, ``[k, columns]``."""
        with self._lock:
            for column in np.unique(np.asarray(numbers), axis=1).T:
                layers = np.searchsorted(self._starts, column, side="right") - 1
                for layer in np.unique(layers):
                    own = layers == layer
                    rows = column[own] - self._starts[layer]
                    self._layers[layer][np.ix_(rows, rows)] += np.asarray(products)[np.ix_(own, own)]


def inputs_of(
    equation: Any, activation: jax.Array, numbers: jax.Array, side: int
) -> tuple[jax.Array, jax.Array] | None:
    """Return what a product multiplies with the rows of operand ``side``: ``[n, k]``, and the rows' numbers ``[k, m]``.

    Rows that are joined have m > 1 columns of numbers. None where the product has no such form.
    """
    known = equation.params
    if equation.primitive.name == "dot_general":
        (contracted, shared) = known["dimension_numbers"]
        own, along = list(contracted[side]), list(contracted[1 - side])
        if shared[0] or any(numbers.shape[a] != activation.shape[b] for a, b in zip(own, along, strict=True)):
            return None
        count = math.prod(numbers.shape[axis] for axis in own)
        inputs = jnp.moveaxis(activation, along, range(-len(along), 0)).reshape(-1, count)
        return inputs.astype(jnp.float32), jnp.moveaxis(numbers, own, range(len(own))).reshape(count, -1)
    spec, kernel = known["dimension_numbers"], equation.invars[1].aval.shape
    turned = numbers.transpose(spec.rhs_spec)
    sizes = tuple(kernel[axis] for axis in spec.rhs_spec)
    grouped = known["feature_group_count"] != 1 or known["batch_group_count"] != 1
    if side == 0 or grouped or turned.shape[1:] != sizes[1:]:
        return None
    patches = lax.conv_general_dilated_patches(
        activation.transpose(spec.lhs_spec).astype(jnp.float32),
        sizes[2:],
        known["window_strides"],
        known["padding"],
        known["lhs_dilation"],
        known["rhs_dilation"],
    )
    count = patches.shape[1]
    return jnp.moveaxis(patches, 1, -1).reshape(-1, count), jnp.moveaxis(turned, 0, -1).reshape(count, -1)


def with_feedback(weight: Any, scales: Any, squares: np.ndarray, highest: int) -> jax.Array:
    """Return the codes of a weight ``[rows, columns]`` with a scale for each number, by ``xᵀx`` of its inputs.

    They are integers of magnitude at most ``highest``.
    """
    damped = squares.astype(np.float64)
    damped[np.diag_indices_from(damped)] += DAMPING * damped.diagonal().mean()
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    codes: jax.Array = _rounded(weight.astype(jnp.float32), scales, jnp.asarray(upper, jnp.float32), highest)
    return codes


@functools.partial(jax.jit, static_argnames="highest")
def _rounded(weight: jax.Array, scales: jax.Array, upper: jax.Array, highest: int) -> jax.Array:
    count, size = len(weight), min(BLOCK, len(weight))
    fill = -count % size
    weight = jnp.pad(weight, ((0, fill), (0, 0)))
    scales = jnp.pad(scales, ((0, fill), (0, 0)), constant_values=1)
    upper = jnp.pad(upper, ((0, fill), (0, fill))) + jnp.diag(jnp.arange(count + fill) >= count)

    def round_block(weight: jax.Array, start: jax.Array) -> tuple[jax.Array, jax.Array]:
        of_block = [lax.dynamic_slice_in_dim(array, start, size) for array in (weight, scales, upper)]
        rest, scale, factors = of_block
        within = lax.dynamic_slice_in_dim(factors, start, size, axis=1)

        def round_row(rest: jax.Array, row: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            code = jnp.round(rest[row] / scale[row]).clip(-highest, highest)
            error = (rest[row] - code * scale[row]) / within[row, row]
            return rest - jnp.outer(within[row], error), (code, error)

        _, (codes, errors) = lax.scan(round_row, rest, jnp.arange(size))
        return weight - factors.T @ errors, codes

    _, codes = lax.scan(round_block, weight, jnp.arange(0, count + fill, size))
    return codes.reshape(-1, weight.shape[1])[:count]
