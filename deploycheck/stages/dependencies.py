"""Which axes of a traced program's values depend on each other, so that they can only be cut together.

Parts of axes (``stages/axes.py``) that must have the same size become one. A part is fixed where it can't be cut: at
the inputs and the outputs of the program, where something is summed or compared along it, where a constant varies along
it, and at every primitive without a rule here. Fang et al., DepGraph: Towards Any Structural Pruning, 2023, has the
same graph between layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jax.extend import core

from deploycheck.stages.axes import Axes, Axis, Part, fix, fresh, same_size, tie
from deploycheck.stages.programs import Program


@dataclass
class Graph:
    """What is known of a program's values.

    ``outputs`` has, for each product and operand, the parts of the product's axes that come from this operand alone.
    ``activations`` are the values that depend on the program's inputs; ``paired`` are the axes along which a product
    multiplies each position of one activation with the same position of another, as attention does with its heads.
    """

    axes: dict[int, Axes] = field(default_factory=dict)
    outputs: list[Axis] = field(default_factory=list)
    activations: set[int] = field(default_factory=set)
    paired: list[Axis] = field(default_factory=list)

    def walk(self, program: Program) -> None:
        """Learn from each step of the program; the axes of its arguments, and which are inputs, are known."""
        for index, value in program.constants.items():
            self.axes[index] = fresh(getattr(value, "shape", ()), fixed=True)
        for step in program.steps:
            operands = [self.of(operand) for operand in step.operands]
            results = self._results(step.equation, operands)
            self.axes.update(zip(step.results, results, strict=True))
            changing = [not isinstance(it, core.Literal) and it in self.activations for it in step.operands]
            if any(changing):
                self.activations.update(step.results)
            if all(changing) and step.equation.primitive.name == "dot_general":
                _, ((*batch,), _) = step.equation.params["dimension_numbers"]
                self.paired += [operands[0][axis] for axis in batch]

    def of(self, value: Any) -> Axes:
        """Return the axes of a value, or of a literal."""
        return fresh(np.shape(value.val), fixed=True) if isinstance(value, core.Literal) else self.axes[value]

    def _results(self, equation: Any, operands: Sequence[Axes]) -> list[Axes]:
        name = equation.primitive.name
        if name in ELEMENTWISE:
            return [_elementwise(operands, variable.aval.shape) for variable in equation.outvars]
        if name in PRODUCTS:
            result, *sides = PRODUCTS[name](equation, operands)
            self.outputs += sides
            return [result]
        if name in RULES:
            return [RULES[name](equation, *operands)]
        fix(axis for axes in operands for axis in axes)
        return [fresh(variable.aval.shape, fixed=True) for variable in equation.outvars]


def _elementwise(operands: Sequence[Axes], shape: Sequence[Any]) -> Axes:
    """An axis of size 1 is repeated along those of the others."""
    full = [axes for axes in operands if len(axes) == len(shape)]
    if not full:  # a cast to another number of bits may add an axis
        fix(axis for axes in operands for axis in axes)
        return fresh(shape, fixed=True)
    result = []
    for axis in range(len(shape)):
        parts = [axes[axis] for axes in full if axes[axis]]
        for other in parts[1:]:
            tie(parts[0], other)
        result.append(parts[0] if parts else ())
    return tuple(result)


def _dot(equation: Any, operands: Sequence[Axes]) -> list[Any]:
    (contracted, batch) = equation.params["dimension_numbers"]
    for pairs in (contracted, batch):
        for left, right in zip(*pairs, strict=True):
            tie(operands[0][left], operands[1][right])
    free = [
        [axis for i, axis in enumerate(operands[side]) if i not in contracted[side] and i not in batch[side]]
        for side in (0, 1)
    ]
    together = [operands[0][axis] for axis in batch[0]]
    return [(*together, *free[0], *free[1]), *(tuple(part for axis in axes for part in axis) for axes in free)]


def _convolution(equation: Any, operands: Sequence[Axes]) -> list[Any]:
    params, shape = equation.params, equation.outvars[0].aval.shape
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    inputs, kernel = operands
    fix(inputs[axis] for axis in numbers.lhs_spec[2:])
    fix(kernel[axis] for axis in numbers.rhs_spec[2:])
    result = list(fresh(shape, fixed=True))
    channels, features = inputs[numbers.lhs_spec[1]], kernel[numbers.rhs_spec[0]]
    if params["batch_group_count"] != 1:
        fix([*inputs, *kernel])
        return [tuple(result), ()]
    if groups > 1:
        group = (Part(groups),)
        tie(channels, group + kernel[numbers.rhs_spec[1]])
        tie(features, group + fresh([shape[numbers.out_spec[1]] // groups])[0])
    else:
        tie(channels, kernel[numbers.rhs_spec[1]])
    result[numbers.out_spec[0]] = inputs[numbers.lhs_spec[0]]
    result[numbers.out_spec[1]] = features
    return [tuple(result), features]


def _broadcast(equation: Any, operand: Axes, *_: Axes) -> Axes:
    axes = list(fresh(equation.outvars[0].aval.shape))
    for axis, out in zip(operand, equation.params["broadcast_dimensions"], strict=True):
        axes[out] = axis or axes[out]
    return tuple(axes)


def _reshape(equation: Any, operand: Axes) -> Axes:
    axes = fresh(equation.outvars[0].aval.shape)
    if equation.params["dimensions"] is not None:
        fix([*operand, *axes])
    tie(_flat(operand), _flat(axes))
    return axes


def _flat(axes: Axes) -> Axis:
    return tuple(part for axis in axes for part in axis)


def _squeeze(equation: Any, operand: Axes) -> Axes:
    return tuple(axis for i, axis in enumerate(operand) if i not in equation.params["dimensions"])


def _reduce(equation: Any, operand: Axes) -> Axes:
    reduced = equation.params["axes"]
    fix(operand[axis] for axis in reduced)
    return tuple(axis for i, axis in enumerate(operand) if i not in reduced)


def _where_whole(equation: Any, operand: Axes, whole: Sequence[bool]) -> Axes:
    """Return the operand's axes where the result has the whole of them; the others are fixed."""
    fix(axis for axis, unchanged in zip(operand, whole, strict=True) if not unchanged)
    other = fresh(equation.outvars[0].aval.shape, fixed=True)
    return tuple(mine if unchanged else its for mine, its, unchanged in zip(operand, other, whole, strict=True))


def _window(equation: Any, operand: Axes) -> Axes:
    params = equation.params
    names = ("window_dimensions", "window_strides", "base_dilation", "window_dilation")
    settings = zip(*(params[name] for name in names), params["padding"], strict=True)
    return _where_whole(equation, operand, [tuple(each) == (1, 1, 1, 1, (0, 0)) for each in settings])


def _pad(equation: Any, operand: Axes, _: Axes) -> Axes:
    return _where_whole(equation, operand, [each == (0, 0, 0) for each in equation.params["padding_config"]])


def _slice(equation: Any, operand: Axes) -> Axes:
    return _where_whole(equation, operand, whole_axes(equation))


def whole_axes(equation: Any) -> list[bool]:
    """Return for each axis of a slice's operand whether the slice is the whole of it."""
    sizes = zip(equation.invars[0].aval.shape, equation.outvars[0].aval.shape, strict=True)
    return [same_size(before, after) for before, after in sizes]


def _concatenate(equation: Any, *operands: Axes) -> Axes:
    whole = [axis != equation.params["dimension"] for axis in range(len(operands[0]))]
    for other in operands[1:]:
        for one, its, unchanged in zip(operands[0], other, whole, strict=True):
            if unchanged:
                tie(one, its)
            else:
                fix([its])
    return _where_whole(equation, operands[0], whole)


def _gather(equation: Any, operand: Axes, indices: Axes) -> Axes:
    """Rows of a table: the axes that are taken whole stay as they are."""
    numbers = equation.params["dimension_numbers"]
    fix(indices)
    result = list(fresh(equation.outvars[0].aval.shape, fixed=True))
    single = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    rest = iter(numbers.offset_dims)
    for axis, whole in enumerate(whole_slices(equation)):
        out = None if axis in single else next(rest)
        if whole and out is not None:
            result[out] = operand[axis]
        else:
            fix([operand[axis]])
    return tuple(result)


def whole_slices(equation: Any) -> list[bool]:
    """Return for each axis of a gather's operand whether its slices are the whole of it."""
    sizes = zip(equation.invars[0].aval.shape, equation.params["slice_sizes"], strict=True)
    return [same_size(size, taken) for size, taken in sizes]


# fmt: off
ELEMENTWISE = frozenset([
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh",
    "bitcast_convert_type", "cbrt", "ceil", "clamp", "convert_element_type", "copy", "cos", "cosh", "digamma",
    "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "imag", "integer_pow",
    "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "nextafter",
    "not", "or", "pow", "real", "reduce_precision", "rem", "round", "rsqrt", "select_n", "shift_left",
    "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh", "sqrt", "square", "stop_gradient",
    "sub", "tan", "tanh", "xor",
])
# fmt: on
"""Primitives whose result at a position depends on their operands at that position alone."""
PRODUCTS: Mapping[str, Callable[[Any, Sequence[Axes]], list[Any]]] = {
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
}
"""The axes of the result, then those parts of it that come from one operand, for each operand that gives some."""
RULES: Mapping[str, Callable[..., Axes]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "gather": _gather,
    "pad": _pad,
    "random_bits": lambda equation, _: fresh(equation.outvars[0].aval.shape),
    "reshape": _reshape,
    "slice": _slice,
    "squeeze": _squeeze,
    "transpose": lambda equation, operand: tuple(operand[axis] for axis in equation.params["permutation"]),
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"), _reduce),
    **dict.fromkeys(("argmax", "argmin"), _reduce),
    **dict.fromkeys(("reduce_window_max", "reduce_window_min", "reduce_window_sum"), _window),
}
"""The axes of the one result, by those of the operands."""
