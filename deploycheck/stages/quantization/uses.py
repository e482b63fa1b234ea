"""Which weights of a traced model can be quantised, and along which axes each gets its scales."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from deploycheck.stages.model import PyTree
from deploycheck.stages.network import Inputs, Outputs
from deploycheck.stages.quantization.axes import LOOKUP, PRODUCTS, REARRANGING, Axes, looked_up, origins, summed
from deploycheck.stages.tracing import bind, evaluate


@dataclass(frozen=True)
class Use:
    """How a weight is used. ``summed`` are its axes that a product sums over, or that make a row of a lookup table.

    Of the others, ``taken`` are those that the program takes apart before it uses the weight: the layers of a scanned
    model. ``shape`` is that of the weight. Where it is ``multiplied``, it meets an activation.
    """

    shape: tuple[int, ...]
    summed: Axes
    taken: Axes
    multiplied: bool = False

    @property
    def layers(self) -> tuple[int, ...]:
        """The shape of an array with one number for each layer."""
        return tuple(size if axis in self.taken else 1 for axis, size in enumerate(self.shape))

    @property
    def channels(self) -> Axes:
        """The axes with a scale for each index."""
        return tuple(axis for axis in range(len(self.shape)) if axis not in self.summed)

    @property
    def grouped(self) -> int | None:
        """The axis that groups are cut along: the last of those that are summed over; None where there is none."""
        return next((axis for axis in reversed(self.summed) if self.shape[axis] > 1), None)


def find_uses(
    apply: Callable[[Mapping[str, Any], PyTree, Inputs], Outputs],
    shapes: Mapping[str, Any],
    state: PyTree,
    inputs: Inputs,
) -> dict[str, Use]:
    """Return the use of each weight that is an operand of a product, a convolution or a lookup of a traced model.

    ``apply(weights, state, inputs)`` is the model; of the others, shapes and dtypes are enough.

    A weight that is used in several ways has the scales of its first product: they serve the other uses too.
    """
    rules = _Following()

    def walk(weights: Mapping[str, Any], state: PyTree, inputs: Inputs) -> Outputs:
        followed = {name: _follow(name, array) for name, array in weights.items()}
        return evaluate(lambda weights, given: apply(weights, state, given), shapes, followed, inputs, rules)

    jax.eval_shape(walk, dict(shapes), state, dict(inputs))
    uses = {**rules.others, **{name: replace(use, multiplied=True) for name, use in rules.products.items()}}
    return {name: uses[name] for name in shapes if name in uses}


@dataclass(frozen=True)
class _View:
    """A weight as it is seen at some place: which of its axes each axis of the value there comes from."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[Axes, ...]

    def moved(self, sources: Sequence[Axes], before: Sequence[int], after: Sequence[int]) -> _View:
        """Return the view of a rearranged value. It has no axis from which only one index is taken."""
        axes = []
        for to, source in enumerate(sources):
            cut = after[to] == 1 and any(before[axis] != 1 for axis in source)
            axes.append(() if cut else tuple(dict.fromkeys(own for axis in source for own in self.axes[axis])))
        return _View(self.name, self.shape, tuple(axes))

    def use(self, summed: Sequence[int]) -> Use:
        """Return its use by an equation that sums over these axes of the value."""
        present = {own for axes in self.axes for own in axes}
        return Use(
            self.shape,
            tuple(dict.fromkeys(own for axis in summed for own in self.axes[axis])),
            tuple(axis for axis in range(len(self.shape)) if axis not in present),
        )


@dataclass(frozen=True)
class _Followed:
    """A value of the program that one weight, or several joined, make up."""

    array: Any
    views: tuple[_View, ...]


def _follow(name: str, array: Any) -> Any:
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return array
    return _Followed(array, (_View(name, array.shape, tuple((axis,) for axis in range(array.ndim))),))


class _Following:
    """Rules that note how weights are used, and leave the program as it is."""

    primitives = REARRANGING | PRODUCTS | {LOOKUP}

    def __init__(self) -> None:
        self.products: dict[str, Use] = {}
        self.others: dict[str, Use] = {}

    def plain(self, value: Any) -> Any:
        return value.array if isinstance(value, _Followed) else value

    def unstack(self, value: Any) -> tuple[Any, Callable[[Any], Any]]:
        if not isinstance(value, _Followed):
            return value, lambda array: array
        views = tuple(_View(view.name, view.shape, view.axes[1:]) for view in value.views)
        return value.array, lambda array: _Followed(array, views)

    def apply(self, equation: Any, operands: Sequence[Any]) -> Any:
        results = bind(equation, [self.plain(operand) for operand in operands])
        name = equation.primitive.name
        if name in REARRANGING:
            return self._rearranged(equation, operands, results)
        if name == LOOKUP:
            self._note_lookup(equation, operands[0])
        else:
            self._note_product(equation, operands)
        return results

    def _rearranged(self, equation: Any, operands: Sequence[Any], results: Any) -> Any:
        joined = operands if equation.primitive.name == "concatenate" else operands[:1]
        if not all(isinstance(operand, _Followed) for operand in joined):
            return results
        sources = origins(equation)

        def follow(array: Any) -> Any:
            if not jnp.issubdtype(array.dtype, jnp.floating):
                return array
            views = [view.moved(sources, part.array.shape, array.shape) for part in joined for view in part.views]
            return _Followed(array, tuple(views))

        return [follow(array) for array in results] if equation.primitive.multiple_results else follow(results)

    def _note_product(self, equation: Any, operands: Sequence[Any]) -> None:
        sides = [side for side, operand in enumerate(operands) if isinstance(operand, _Followed)]
        if equation.primitive.name == "conv_general_dilated" and 0 in sides:
            return
        # A product of two weights is computed in float: the scales of its operands are chosen for their other uses.
        uses = self.products if len(sides) == 1 else self.others
        for side in sides:
            _note(uses, operands[side], summed(equation, side))

    def _note_lookup(self, equation: Any, table: Any) -> None:
        chosen = looked_up(equation)
        if chosen is not None and isinstance(table, _Followed):
            _note(self.others, table, [axis for axis in range(table.array.ndim) if axis not in chosen])


def _note(uses: dict[str, Use], value: _Followed, along: Sequence[int]) -> None:
    for view in value.views:
        uses.setdefault(view.name, view.use(along))
