"""Structured pruning: channels, units and attention heads are cut out of a model, so that its weights become smaller.

The axes that must be cut together are found in the traced program (``stages/dependencies.py``). The model's code is
written for the old shapes, so the smaller model is the same traced program, evaluated on the smaller weights: shapes
that it states (of a reshape or a broadcast) are replaced. No framework's modules are involved. The bodies of custom
derivatives are evaluated, so a gradient is that of the body.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deploycheck.errors import DeploycheckError
from deploycheck.stages.axes import Axes, Axis, Part, fix, fresh, resolve, size_of, tie
from deploycheck.stages.dependencies import Graph, whole_axes, whole_slices
from deploycheck.stages.kernels import find_kernels
from deploycheck.stages.model import Model, PyTree
from deploycheck.stages.network import Inputs, Outputs
from deploycheck.stages.programs import ModelProgram, Step, run, trace


@dataclass(frozen=True)
class Cut:
    """A part of a weight's axis: its size, how many positions are left, and the group that it is cut with."""

    size: int
    kept: int
    group: int | None


Layout = Mapping[str, tuple[tuple[Cut, ...], ...]]
"""For each weight (as ``Model.weights`` names it) the parts of each of its axes."""


Positions = Mapping[int, np.ndarray]
"""For each group the positions that are left, in order."""


@dataclass(frozen=True)
class Unit:
    """What is cut out of a model: its name, which groups of positions it is, and where there are none."""

    name: str
    groups: Callable[[_Structure, Sequence[Part]], Sequence[Part]]
    hint: str


def cut_model(model: Model, unit: Unit, share: float, kernels: Collection[str]) -> Model:
    """Return the model without the share (0..1) of each group of a unit, rounded down: those with the lowest norm.

    The norm of a channel or a head is that (L2) of all weights of two or more axes that give it or take it. Only
    ``kernels`` become smaller. Raises ``DeploycheckError`` where nothing can be cut.
    """
    layout = plan_cuts(model.form, unit, share, kernels)
    positions = choose_positions(model.weights, layout)
    weights = {name: _take(array, layout[name], positions) for name, array in model.weights.items()}
    return _smaller(model, layout).with_weights(weights)


def cut_form(form: Model, unit: Unit, share: float, kernels: Collection[str]) -> Model:
    """Return the form of what ``cut_model`` makes of a model with this form."""
    layout = plan_cuts(form, unit, share, kernels)
    weights = {name: jax.ShapeDtypeStruct(_shape(layout[name]), leaf.dtype) for name, leaf in form.weights.items()}
    return _smaller(form, layout).with_weights(weights)


def plan_cuts(form: Model, unit: Unit, share: float, kernels: Collection[str]) -> Layout:
    """Return what is cut of each weight of a model."""
    known = _structure_of(form)
    weights = known.weights
    fix(axis for name in find_kernels(form) if name not in kernels for axis in weights[f"params/{name}"])
    axes = [axis for name in kernels for axis in weights[f"params/{name}"]]
    found = unit.groups(known, [part for axis in axes for part in resolve(axis) if not part.fixed])
    groups = {part: number for number, part in enumerate(dict.fromkeys(found))}
    for part in groups:
        part.kept = part.size - math.floor(share * part.size + 1e-9)
    if all(part.kept == part.size for part in groups):
        sizes = ", ".join(str(part.size) for part in groups)
        raise DeploycheckError(
            f"no {unit.name} can be cut" + (f": {share:.0%} of groups of {sizes} is less than one" if groups else ""),
            hint=unit.hint,
        )

    def cut(part: Part) -> Cut:
        return Cut(part.size, part.size if part.kept is None else part.kept, groups.get(part))

    return {name: tuple(tuple(map(cut, resolve(axis))) for axis in axes) for name, axes in weights.items()}


def choose_positions(weights: Mapping[str, Any], layout: Layout) -> Positions:
    """Return the positions of each group with the highest norms."""
    squares: dict[int, np.ndarray] = {}
    kept: dict[int, int] = {}
    for name, axes in layout.items():
        if len(axes) < 2 or not name.startswith("params/"):
            continue
        cuts = _cuts(axes)
        parts = np.square(np.asarray(weights[name], np.float32)).reshape([cut.size for cut in cuts])
        for axis, cut in enumerate(cuts):
            if cut.group is not None:
                others = tuple(other for other in range(len(cuts)) if other != axis)
                squares[cut.group] = parts.sum(axis=others) + squares.get(cut.group, 0)
                kept[cut.group] = cut.kept
    return {group: np.sort(np.argsort(-norm, kind="stable")[: kept[group]]) for group, norm in squares.items()}


def _cuts(axes: Sequence[Sequence[Cut]]) -> list[Cut]:
    return [cut for axis in axes for cut in axis]


def _shape(axes: Sequence[Sequence[Cut]]) -> tuple[int, ...]:
    return tuple(math.prod(cut.kept for cut in axis) for axis in axes)


def _take(array: jax.Array, axes: Sequence[Sequence[Cut]], positions: Positions) -> jax.Array:
    """Return the positions of a weight that are left."""
    cuts = _cuts(axes)
    parts = np.asarray(array).reshape([cut.size for cut in cuts])
    for axis, cut in enumerate(cuts):
        if cut.group is not None:
            parts = np.take(parts, positions[cut.group], axis=axis)
    return jnp.asarray(parts.reshape(_shape(axes)))


@dataclass(frozen=True)
class _Structure:
    """The axes of a model's weights, and those axes of its activations that are heads."""

    weights: Mapping[str, Axes]
    heads: Sequence[Axis]


def _structure_of(form: Model) -> _Structure:
    """Return what both programs of a model, for inference and for training, say of its weights' axes."""
    weights = {name: fresh(leaf.shape) for name, leaf in form.weights.items()}
    state = [axes for name, axes in weights.items() if name.startswith("state/")]
    inference = _trace(form.apply, form, weights, dict(form.inputs))
    training = _trace(form.train, form, weights, dict(form.inputs), jax.random.key(0))
    outputs = len(training.results) - len(state)
    fix(axis for axes in (*inference.results, *training.results[:outputs]) for axis in axes)
    for before, after in zip(state, training.results[outputs:], strict=True):
        for one, other in zip(before, after, strict=True):
            tie(one, other)
    for axis in inference.graph.outputs:
        _leave_whole(axis)
    return _Structure(weights, inference.graph.paired)


def _leave_whole(output: Axis) -> None:
    """Fix all but the outermost of the parts that a product gives: of attention, whole heads are cut."""
    for part in [part for part in resolve(output) if not part.fixed][1:]:
        part.fixed = True


@dataclass(frozen=True)
class _Traced:
    """A program of a model, and what is known of its values."""

    program: ModelProgram
    graph: Graph

    @property
    def results(self) -> list[Axes]:
        return [self.graph.of(value) for value in self.program.program.results]


def _trace(
    function: Callable[..., Any], form: Model, weights: Mapping[str, Axes], inputs: Inputs, *key: jax.Array
) -> _Traced:
    """Trace ``function(params, state, inputs, *key)`` of a model for its own shapes."""
    traced, graph = trace(function, form, inputs, *key), Graph()
    others = traced.program.arguments[len(weights) :]
    given = [fresh(leaf.shape, fixed=True) for leaf in jax.tree.leaves((inputs, key))]
    graph.axes.update({value: weights[name] for value, name in traced.weights.items()})
    graph.axes.update(zip(others, given, strict=True))
    graph.activations.update(others)
    graph.walk(traced.program)
    return _Traced(traced, graph)


def _smaller(model: Model, layout: Layout) -> Model:
    """Return the model with the functions for the smaller weights, and still its own weights."""
    form = model.form

    def apply(params: PyTree, state: PyTree, inputs: Inputs) -> Outputs:
        outputs: Outputs = _evaluate(form.apply, form, layout, params, state, dict(inputs))
        return outputs

    def train(params: PyTree, state: PyTree, inputs: Inputs, key: jax.Array) -> tuple[Outputs, PyTree]:
        answer: tuple[Outputs, PyTree] = _evaluate(form.train, form, layout, params, state, dict(inputs), key)
        return answer

    return replace(model, apply=apply, train=train)


def _evaluate(
    function: Callable[..., Any], form: Model, layout: Layout, params: PyTree, state: PyTree, *rest: Any
) -> Any:
    """Evaluate ``function(params, state, *rest)``, traced for the full model, on the smaller one's weights."""
    cuts = {name: _cuts(axes) for name, axes in layout.items()}
    groups = {cut.group: Part(cut.size, cut.kept) for each in cuts.values() for cut in each if cut.group is not None}
    weights = {
        name: tuple(tuple(Part(cut.size) if cut.group is None else groups[cut.group] for cut in axis) for axis in axes)
        for name, axes in layout.items()
    }
    traced = _trace(function, form, weights, *rest)
    if any(part.fixed and part.kept != part.size for group in groups.values() for part in resolve([group])):
        raise DeploycheckError("an axis that was cut has its full size in this program")

    def resized(step: Step, operands: Sequence[Any]) -> Mapping[str, Any]:
        name, known = step.equation.primitive.name, dict(step.equation.params)
        if name in STATED:
            known[STATED[name]] = tuple(map(size_of, traced.graph.axes[step.results[0]]))
        if name in RESIZED:
            known |= RESIZED[name](step.equation, operands)
        return known

    program = traced.program.program
    results = run(program.steps, traced.program.given(params, state, *rest), program.results, resized)
    return jax.tree.unflatten(traced.program.answer, results)


def _groups(equation: Any, operands: Sequence[Any]) -> Mapping[str, Any]:
    numbers = equation.params["dimension_numbers"]
    channels, each = operands[0].shape[numbers.lhs_spec[1]], operands[1].shape[numbers.rhs_spec[1]]
    return {"feature_group_count": channels // each}


def _limits(equation: Any, operands: Sequence[Any]) -> Mapping[str, Any]:
    settings = zip(operands[0].shape, equation.params["limit_indices"], whole_axes(equation), strict=True)
    return {"limit_indices": tuple(size if whole else limit for size, limit, whole in settings)}


def _slices(equation: Any, operands: Sequence[Any]) -> Mapping[str, Any]:
    settings = zip(operands[0].shape, equation.params["slice_sizes"], whole_slices(equation), strict=True)
    return {"slice_sizes": tuple(size if whole else taken for size, taken, whole in settings)}


STATED: Mapping[str, str] = {"broadcast_in_dim": "shape", "random_bits": "shape", "reshape": "new_sizes"}
"""Primitives that state the shape of their result, and in which parameter."""
RESIZED: Mapping[str, Callable[[Any, Sequence[Any]], Mapping[str, Any]]] = {
    "conv_general_dilated": _groups,
    "gather": _slices,
    "slice": _limits,
}
"""Primitives with a parameter that depends on the sizes of their operands: its value for the smaller ones."""


def _of_heads(known: _Structure, parts: Sequence[Part]) -> Sequence[Part]:
    heads = {part for axis in known.heads for part in resolve(axis)}
    return [part for part in parts if part in heads]


CHANNELS = Unit(
    "channels",
    lambda _, parts: parts,
    "channels are cut between two kernels: not those of inputs and outputs, and not where a normalisation or a sum "
    "runs over them",
)
HEADS = Unit(
    "heads",
    _of_heads,
    "heads are an axis along which attention multiplies queries with keys of their own; those inside a loop "
    "(`scan`) are not found",
)
