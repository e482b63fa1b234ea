"""Loops and branches, whose bodies become graphs of their own: ``Scan``, ``Loop`` and ``If``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, helper

from deploycheck.serving.runtimes._onnx_graph import Graph, Rule, Shape, Tensor, described, renamed
from deploycheck.serving.runtimes._onnx_types import BOOL, INT32, INT64, held_as


def scan(graph: Graph, equation: Any, *operands: Tensor) -> Sequence[Tensor]:
    """Run the body once for each row of the operands that are scanned, first to last or last to first."""
    known, closed = equation.params, equation.params["jaxpr"]
    constants, carried = known["num_consts"], known["num_carry"]
    outside, state = operands[:constants], operands[constants : constants + carried]
    rows = list(operands[constants + carried :])
    body = graph.body()
    given = [_operand(body, v.aval) for v in closed.jaxpr.invars[constants:]]
    results = body.run(closed.jaxpr, closed.consts, [*outside, *given])
    if not rows:  # ONNX scans at least one operand: one that nobody reads
        rows = [graph.constant(np.zeros(known["length"], bool))]
        given.append(body.input("row", (), BOOL))
    inner = _graph_of(body, given, results, [v.aval.shape for v in closed.jaxpr.outvars])
    shapes = [(v.aval.shape, result.dtype) for v, result in zip(equation.outvars, results, strict=True)]
    directions = {"scan_input_directions": len(rows), "scan_output_directions": len(results) - carried}
    backwards = {name: [1] * count for name, count in directions.items() if known["reverse"] and count}
    return graph.add_many("Scan", [*state, *rows], shapes, body=inner, num_scan_inputs=len(rows), **backwards)


def while_(graph: Graph, equation: Any, *operands: Tensor) -> Sequence[Tensor]:
    """Run the body as long as the condition holds."""
    known = equation.params
    condition, loop = known["cond_jaxpr"], known["body_jaxpr"]
    first, second = known["cond_nconsts"], known["body_nconsts"]
    for_condition, for_body, state = operands[:first], operands[first : first + second], operands[first + second :]
    (begins,) = graph.run(condition.jaxpr, condition.consts, [*for_condition, *state])
    body = graph.body()
    number, still = body.input("number", (), INT64), body.input("still", (), BOOL)
    given = [_operand(body, v.aval) for v in loop.jaxpr.invars[second:]]
    results = body.run(loop.jaxpr, loop.consts, [*for_body, *given])
    whole = [body.full(each, v.aval.shape) for each, v in zip(results, loop.jaxpr.outvars, strict=True)]
    (goes_on,) = body.run(condition.jaxpr, condition.consts, [*for_condition, *whole])
    inner = _graph_of(body, [number, still, *given], [goes_on, *whole], [(), *(each.shape for each in whole)])
    shapes = [(v.aval.shape, each.dtype) for v, each in zip(equation.outvars, whole, strict=True)]
    return graph.add_many("Loop", [None, begins, *state], shapes, body=inner)


def cond(graph: Graph, equation: Any, which: Tensor, *operands: Tensor) -> Sequence[Tensor]:
    """Run the branch that a number names; the last one for larger numbers.

    Of branches that are each for a kind of device, this is the one for all others: ONNX is none of JAX's.
    """
    platforms = equation.params.get("branches_platforms")
    if platforms:
        at = (
            platforms.index(None)
            if None in platforms
            else next(i for i, names in enumerate(platforms) if "cpu" in names)
        )
        chosen = equation.params["branches"][at]
        return graph.run(chosen.jaxpr, chosen.consts, operands)
    return _branch(graph, equation, graph.cast(which, INT64), operands, 0)


def platform_index(graph: Graph, equation: Any) -> Tensor:
    """Return any number: ``cond`` chooses a branch for a kind of device by itself."""
    del equation
    return graph.constant(0, INT32)


def _branch(graph: Graph, equation: Any, which: Tensor, operands: Sequence[Tensor], first: int) -> list[Tensor]:
    branches = equation.params["branches"]
    if first == len(branches) - 1:
        results = graph.run(branches[first].jaxpr, branches[first].consts, operands)
        return [graph.full(each, v.aval.shape) for each, v in zip(results, equation.outvars, strict=True)]
    is_first = graph.add("LessOrEqual", which, graph.constant(first, INT64), dtype=BOOL)
    graphs, results = [], []
    for body, begins in ((graph.body(), None), (graph.body(), first + 1)):
        if begins is None:
            results = body.run(branches[first].jaxpr, branches[first].consts, operands)
        else:
            results = _branch(body, equation, which, operands, begins)
        graphs.append(_graph_of(body, [], results, [v.aval.shape for v in equation.outvars]))
    shapes = [(v.aval.shape, each.dtype) for v, each in zip(equation.outvars, results, strict=True)]
    return graph.add_many("If", [is_first], shapes, then_branch=graphs[0], else_branch=graphs[1])


def _operand(body: Graph, aval: Any) -> Tensor:
    return body.input("operand", aval.shape, held_as(aval.dtype))


def _graph_of(body: Graph, given: Sequence[Tensor], results: Sequence[Tensor], shapes: Sequence[Shape]) -> GraphProto:
    """Return a body as ONNX has it. A result gets a name of its own, because it may be an operand or a constant."""
    named = [renamed(body, body.full(each, shape), "result") for each, shape in zip(results, shapes, strict=True)]
    inputs, outputs = ([described(each, body.batch) for each in side] for side in (given, named))
    return helper.make_graph(body.nodes, "body", inputs, outputs)


RULES: Mapping[str, Rule] = {"scan": scan, "while": while_, "cond": cond, "platform_index": platform_index}
