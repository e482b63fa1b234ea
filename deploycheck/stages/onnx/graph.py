"""What is kept of an ONNX file: nodes in order, and the tensors that the file holds. Doesn't import onnx."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploycheck.stages.inputs import Input

FUNCTION = "a function"
"""The operator of a node that is evaluated as the others that ONNX defines it by: the graph ``body``."""


@dataclass(frozen=True)
class Node:
    """One use of an operator.

    ``op`` has its domain before it, unless it is ONNX's own: ``com.microsoft.FusedGemm``. An input that is left out has
    the name ``""``. ``attributes`` are complete: what the file leaves out has the operator's default. ``opset`` is the
    version of the operators that the node is written in.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int

    def __str__(self) -> str:
        return f"{self.name or self.outputs[0]} ({self.op})"


@dataclass(frozen=True)
class Graph:
    """Nodes in the order of their evaluation. ``held`` are the tensors that the file itself has, by name."""

    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    held: Mapping[str, np.ndarray]
    nodes: tuple[Node, ...]

    def operator_of(self, output: str) -> str:
        """Return the operator that gives a value; ``""`` for a value that no node gives."""
        return next((node.op for node in self.nodes if output in node.outputs), "")

    def all_nodes(self) -> Iterator[Node]:
        """Yield every node, those in the bodies of branches and loops included."""
        for node in self.nodes:
            yield node
            for value in node.attributes.values():
                if isinstance(value, Graph):
                    yield from value.all_nodes()


Rule = Callable[..., Any]
"""What an operator gives: ``rule(node, *inputs)`` is its one output, or the tuple of its outputs.

An input that is left out is None. See ``values.py`` for what the others may be.
"""
