"""An ONNX graph that is made from a traced program, equation by equation, by a table of rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
import onnx
from jax.extend import core
from onnx import helper, numpy_helper

from deploycheck.serving.runtimes._onnx_types import FLOAT, INT32, INT64, NotInOnnx, held_as
from deploycheck.stages.tracing import CALLS, called

Shape = tuple[Any, ...]
"""Sizes: whole numbers, or JAX's symbolic dimensions."""


@dataclass(frozen=True)
class Tensor:
    """A value of the graph: its name, the shape and type it is held in, and its numbers where they are known.

    Its shape may have ones, or no axis at all, where the traced program has a size that the value is broadcast to:
    the arithmetic of ONNX broadcasts by itself.
    """

    name: str
    shape: Shape
    dtype: np.dtype[Any]
    value: np.ndarray | None = None


Rule = Callable[..., Tensor | Sequence[Tensor]]
"""``rule(graph, equation, *operands)`` adds nodes, and returns the equation's result, or its results."""


@dataclass(frozen=True)
class Rules:
    """The rule of each primitive: ``elementwise`` ones take operands as they are held, others in their full shape."""

    elementwise: Mapping[str, Rule]
    others: Mapping[str, Rule]


@dataclass
class _Shared:
    """What a graph and the bodies of its loops have in common."""

    rules: Rules
    batch: Any
    names: set[str] = field(default_factory=set)
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)
    constants: dict[tuple[str, Shape, bytes], Tensor] = field(default_factory=dict)
    sizes: dict[str, Tensor] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)


class Graph:
    """The nodes that were added so far. ``batch`` is the symbolic size that the shapes of a program may depend on."""

    def __init__(self, rules: Rules, batch: Any, outer: Graph | None = None) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._shared: _Shared = outer._shared if outer else _Shared(rules, batch)
        self._outer = outer
        self._makers: dict[str, onnx.NodeProto] = {}
        self._transposed: dict[str, tuple[Tensor, Sequence[int]]] = {}

    @property
    def batch(self) -> str:
        """The name of the symbolic size."""
        return str(self._shared.batch)

    @property
    def initializers(self) -> list[onnx.TensorProto]:
        """The constants of the graph and of the bodies in it."""
        return list(self._shared.initializers.values())

    @property
    def missing(self) -> list[str]:
        """What the program needs and no rule can express, in alphabetical order."""
        return sorted(self._shared.missing)

    def body(self) -> Graph:
        """Return a graph for the body of a loop or of a branch, which may use this graph's values."""
        return Graph(self._shared.rules, self._shared.batch, self)

    def name(self, wanted: str) -> str:
        """Return a name that is not taken yet, the wanted one if possible."""
        while wanted in self._shared.names:
            wanted += "'"
        self._shared.names.add(wanted)
        return wanted

    def _new(self, shape: Shape, dtype: Any, value: np.ndarray | None = None) -> Tensor:
        return Tensor(self.name(f"%{len(self._shared.names)}"), shape, np.dtype(dtype), value)

    def input(self, wanted: str, shape: Shape, dtype: np.dtype[Any]) -> Tensor:
        """Return a value that comes from outside: an input, a weight, an operand of a body."""
        return Tensor(self.name(wanted), shape, dtype)

    def add(self, op: str, *inputs: Tensor, shape: Shape | None = None, dtype: Any = None, **given: Any) -> Tensor:
        """Add a node with one result: by default of its first input's type, its shape that of all inputs broadcast."""
        whole = broadcast(each.shape for each in inputs) if shape is None else shape
        (result,) = self.add_many(op, inputs, [(whole, dtype or inputs[0].dtype)], **given)
        return result

    def add_many(
        self, op: str, inputs: Sequence[Tensor | None], results: Sequence[tuple[Shape, Any]], **given: Any
    ) -> list[Tensor]:
        """Add a node with several results, of these shapes and types."""
        tensors = [self._new(*result) for result in results]
        names = [each.name if each else "" for each in inputs]
        node = helper.make_node(op, names, [tensor.name for tensor in tensors], **given)
        self.nodes.append(node)
        self._makers.update(dict.fromkeys(node.output, node))
        return tensors

    def constant(self, value: Any, dtype: Any = None) -> Tensor:
        """Return numbers that are known; equal ones are stored once."""
        array = np.asarray(value, order="C")
        array = array.astype(dtype or held_as(array.dtype))
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._shared.constants:
            tensor = self._new(array.shape, array.dtype, array)
            self._shared.constants[key] = tensor
            self._shared.initializers[tensor.name] = numpy_helper.from_array(array, tensor.name)
        return self._shared.constants[key]

    def sizes(self, shape: Shape) -> Tensor:
        """Return a shape as numbers, ``[rank]`` of int64."""
        if all(isinstance(size, int | np.integer) for size in shape):
            return self.constant(np.array(shape, np.int64))
        if len(shape) > 1:
            return self.add("Concat", *(self.sizes((size,)) for size in shape), shape=(len(shape),), axis=0)
        return self._size(shape[0])

    def _size(self, dimension: Any) -> Tensor:
        """Return a symbolic size, ``[1]`` of int64. It is computed once, in the outermost graph."""
        if self._outer:
            return self._outer._size(dimension)
        key = str(dimension)
        if key not in self._shared.sizes:
            # JAX has no public function that reads a symbolic size, so it is traced as a function of the batch.
            traced = jax.make_jaxpr(lambda batch: dimension._evaluate({self.batch: batch}))(np.int32(1))
            batch = self.cast(self.reshape(self._shared.sizes[self.batch], ()), INT32)
            (size,) = self.run(traced.jaxpr, traced.consts, [batch])
            self._shared.sizes[key] = self.reshape(self.cast(size, INT64), (1,))
        return self._shared.sizes[key]

    def measure_batch(self, of: Tensor) -> None:
        """Let the batch be the size of this input's first axis."""
        size = self.add("Shape", of, shape=(1,), dtype=INT64, start=0, end=1)
        self._shared.sizes[self.batch] = size

    def cast(self, tensor: Tensor, dtype: Any) -> Tensor:
        """Return a tensor's numbers in another type, converted as C does."""
        if tensor.dtype == dtype:
            return tensor
        if tensor.value is not None and tensor.value.size == 1:
            return self.constant(tensor.value.astype(dtype))
        to = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.add("Cast", tensor, dtype=dtype, to=to)

    def reshape(self, tensor: Tensor, shape: Shape) -> Tensor:
        """Return a tensor's numbers in another shape with as many of them."""
        if tensor.shape == shape:
            return tensor
        if tensor.value is not None and tensor.value.size == 1:
            return self.constant(tensor.value.reshape(shape))
        unknown = [axis for axis, size in enumerate(shape) if not isinstance(size, int | np.integer)]
        if len(unknown) == 1 and 0 not in shape:
            known = np.array([-1 if axis in unknown else size for axis, size in enumerate(shape)], np.int64)
            return self.add("Reshape", tensor, self.constant(known), shape=shape)
        return self.add("Reshape", tensor, self.sizes(shape), shape=shape, allowzero=1)

    def transpose(self, tensor: Tensor, order: Iterable[int]) -> Tensor:
        """Return a tensor with its axes in another order; two such changes are joined, and axes of size 1 are free."""
        before, axes = self._transposed.get(tensor.name, (tensor, range(len(tensor.shape))))
        joined = [int(axes[axis]) for axis in order]
        shape = tuple(before.shape[axis] for axis in joined)
        moving = [axis for axis in joined if not _is_one(before.shape[axis])]
        if moving == sorted(moving):
            return self.reshape(before, shape)
        result = self.add("Transpose", before, shape=shape, perm=joined)
        self._transposed[result.name] = before, joined
        return result

    def full(self, tensor: Tensor, shape: Shape) -> Tensor:
        """Return a tensor in the shape that the traced program gives it."""
        if tensor.shape == shape:
            return tensor
        return self.add("Expand", tensor, self.sizes(shape), shape=shape)

    def producer(self, name: str, op: str) -> onnx.NodeProto | None:
        """Return the node of this graph whose result has this name, if it is of this kind."""
        node = self._makers.get(name)
        return node if node is not None and node.op_type == op else None

    def run(self, jaxpr: Any, constants: Sequence[Any], operands: Sequence[Tensor]) -> list[Tensor]:
        """Add the nodes of a program; return its results, as they are held.

        What can't be expressed is added to ``missing``, and the rest is looked at all the same.
        """
        values: dict[Any, Tensor] = dict(zip(jaxpr.invars, operands, strict=True))
        known = dict(zip(jaxpr.constvars, constants, strict=True))

        def read(variable: Any) -> Tensor:
            if isinstance(variable, core.Literal):
                aval: Any = variable.aval
                return self._given(np.asarray(variable.val, aval.dtype))
            if variable not in values:
                values[variable] = self._given(known[variable])
            return values[variable]

        for equation in jaxpr.eqns:
            results = self._results(equation, [read(variable) for variable in equation.invars])
            values.update(zip(equation.outvars, results, strict=True))
        return [read(variable) for variable in jaxpr.outvars]

    def _given(self, value: Any) -> Tensor:
        try:
            return self.constant(value)
        except (NotInOnnx, TypeError) as error:
            self._shared.missing.add(str(error))
            return self._new(np.shape(value), FLOAT)

    def _results(self, equation: Any, operands: Sequence[Tensor]) -> Sequence[Tensor]:
        name, rules = equation.primitive.name, self._shared.rules
        if name in CALLS:
            body = called(equation)
            return self.run(body.jaxpr, body.consts, operands)
        try:
            if name in rules.elementwise:
                return _as_list(rules.elementwise[name](self, equation, *operands))
            if name in rules.others:
                whole = [self.full(each, v.aval.shape) for each, v in zip(operands, equation.invars, strict=True)]
                return _as_list(rules.others[name](self, equation, *whole))
            self._shared.missing.add(name)
        except NotInOnnx as error:
            self._shared.missing.add(f"{name} ({error})")
        return [self._new(v.aval.shape, FLOAT) for v in equation.outvars]


def _as_list(results: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [results] if isinstance(results, Tensor) else results


def broadcast(shapes: Iterable[Shape]) -> Shape:
    """Return the shape that tensors of these shapes are broadcast to, their last axes aligned."""
    given = list(shapes)
    rank = max(map(len, given), default=0)
    aligned = zip(*((1,) * (rank - len(shape)) + tuple(shape) for shape in given), strict=True)
    return tuple(next((size for size in sizes if not _is_one(size)), 1) for sizes in aligned)


def _is_one(size: Any) -> bool:
    return isinstance(size, int | np.integer) and size == 1


def reachable(nodes: Sequence[onnx.NodeProto], results: Iterable[str]) -> list[onnx.NodeProto]:
    """Return the nodes that the results need, in the same order."""
    needed, kept = set(results), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(names_read(node))
    return kept[::-1]


def names_read(node: onnx.NodeProto) -> set[str]:
    """Return the names that a node reads, those in its bodies included."""
    names = set(node.input)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            names.update(*(names_read(inner) for inner in attribute.g.node), (each.name for each in attribute.g.output))
    return names


def described(tensor: Tensor, batch: str) -> onnx.ValueInfoProto:
    """Return the name, type and shape of an input or output; a symbolic size is named."""
    shape = [size if isinstance(size, int) else batch for size in tensor.shape]
    return helper.make_tensor_value_info(tensor.name, helper.np_dtype_to_tensor_dtype(tensor.dtype), shape)


def renamed(graph: Graph, tensor: Tensor, wanted: str) -> Tensor:
    """Return the tensor under a name of its own."""
    result = replace(tensor, name=graph.name(wanted), value=None)
    graph.nodes.append(helper.make_node("Identity", [tensor.name], [result.name]))
    return result
