"""The evaluation of an ONNX graph: node by node, each by the rule of its operator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from deploycheck.errors import DeploycheckError
from deploycheck.stages.onnx.graph import Graph, Node
from deploycheck.stages.onnx.rules import RULES
from deploycheck.stages.onnx.values import packed


def evaluate(graph: Graph, values: Mapping[str, Any]) -> list[Any]:
    """Return the outputs of a graph, given its inputs, and the tensors of the file that it doesn't hold itself.

    Raises ``DeploycheckError`` that names the node which can't be evaluated.
    """
    scope: dict[str, Any] = {**values, **graph.held}
    for node in graph.nodes:
        given = [scope[name] if name else None for name in node.inputs]
        scope.update(zip(node.outputs, _results(_with_functions(node, scope), given), strict=False))
    return [scope[name] for name in graph.outputs]


def _with_functions(node: Node, scope: Mapping[str, Any]) -> Node:
    """Return a node with functions in place of its graphs, which see the values around it."""
    functions = {name: _function(value, scope) for name, value in node.attributes.items() if isinstance(value, Graph)}
    return replace(node, attributes={**node.attributes, **functions}) if functions else node


def _function(graph: Graph, scope: Mapping[str, Any]) -> Callable[..., list[Any]]:
    def call(*values: Any) -> list[Any]:
        names = [each.name for each in graph.inputs]
        return evaluate(graph, {**scope, **dict(zip(names, values, strict=False))})

    return call


def _results(node: Node, given: Iterable[Any]) -> list[Any]:
    try:
        results = RULES[node.op](node, *given)
    except DeploycheckError as error:
        raise DeploycheckError(f"its node {node} can't be evaluated: {error.what}", hint=error.hint) from error
    except Exception as error:  # shapes that don't fit make NumPy and JAX raise anything
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise DeploycheckError(f"its node {node} can't be evaluated: {first}") from error
    outputs = results if isinstance(results, tuple) else (results,)
    missing = [name for name in node.outputs[len(outputs) :] if name]
    if missing:
        raise DeploycheckError(f"its node {node} gives more than is supported: {', '.join(missing)}")
    return [None if output is None else packed(output) for output in outputs]
