"""ONNX files on disk: they are checked, and read as graphs. A file is somebody else's: none of it is trusted."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, checker, defs, external_data_helper, helper, inliner, numpy_helper, version_converter

from deploycheck.errors import DeploycheckError
from deploycheck.stages.inputs import Input
from deploycheck.stages.onnx.graph import FUNCTION, Graph, Node
from deploycheck.stages.onnx.rules import RULES

OLDEST = 13
"""The first version of the operators that the rules know; an older file is converted by onnx."""


def files_of(path: Path) -> list[Path]:
    """Return all files of a model: its own, and those in its folder that hold the numbers of its tensors."""
    with _refusing_unreadable():
        model = onnx.load_model_from_string(path.read_bytes())
    tensors = external_data_helper._get_all_tensors(model)
    named = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    return [path, *sorted(_beside(path, name) for name in named)]


def read_graph(path: Path) -> Graph:
    """Return the graph of a file; raise ``DeploycheckError`` for one that can't be read, or not be evaluated."""
    files_of(path)
    with _refusing_unreadable():
        checker.check_model(str(path))
        model = onnx.load_model(path)
    return graph_of(model)


def read_program(path: Path) -> tuple[Graph, dict[str, np.dtype[Any]]]:
    """Return the graph of a file without those of its tensors that are kept elsewhere, and the types of these.

    Raises ``DeploycheckError`` as ``read_graph`` does.
    """
    with _refusing_unreadable():
        model = onnx.load_model(path, load_external_data=False)
        elsewhere = [each for each in model.graph.initializer if external_data_helper.uses_external_data(each)]
        dtypes = {each.name: np.dtype(helper.tensor_dtype_to_np_dtype(each.data_type)) for each in elsewhere}
        for each in elsewhere:
            model.graph.initializer.remove(each)
    return graph_of(model), dtypes


def graph_of(model: onnx.ModelProto) -> Graph:
    """Return the graph of a model; raise ``DeploycheckError`` for operators that can't be evaluated, all at once."""
    with _refusing_unreadable():
        model = inliner.inline_local_functions(model) if model.functions else model
        if _version(model.opset_import) < OLDEST:
            model = version_converter.convert_version(model, OLDEST)
        graph = _graph(model.graph, {each.domain: each.version for each in model.opset_import}, {})
    _check_operators(graph)
    return graph


@contextmanager
def _refusing_unreadable() -> Iterator[None]:
    """Raise ``DeploycheckError`` for whatever the parsers raise of a damaged file within the block."""
    try:
        yield
    except DeploycheckError:
        raise
    except Exception as error:
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        hint = "check that the whole file is there"
        raise DeploycheckError(f"it can't be read as an ONNX file: {first}", hint=hint) from error


def _beside(path: Path, location: str) -> Path:
    """Return a file that a model names; raise for one that isn't in the model's folder."""
    folder = path.parent.resolve()
    found = (folder / location).resolve()
    if not found.is_relative_to(folder) or not found.is_file():
        what = "is outside of its folder" if not found.is_relative_to(folder) else "is missing"
        raise DeploycheckError(f"its file {location} {what}", hint="keep all files of the model in one folder")
    return found


def _version(opsets: Iterable[onnx.OperatorSetIdProto]) -> int:
    return next((each.version for each in opsets if each.domain in ("", "ai.onnx")), OLDEST)


def _graph(proto: onnx.GraphProto, opsets: Mapping[str, int], outer: Mapping[str, Any]) -> Graph:
    """Return a graph; ``outer`` are the attributes of the function that it is the body of."""
    held = {each.name: numpy_helper.to_array(each) for each in proto.initializer}
    held |= {each.values.name: _dense(each) for each in proto.sparse_initializer}
    nodes = []
    for each in proto.node:
        if each.op_type == "Constant":
            held[each.output[0]] = _constant(each)
        else:
            nodes.append(_node(each, opsets, outer))
    return Graph(
        inputs=tuple(_input(each) for each in proto.input if each.name not in held),
        outputs=tuple(each.name for each in proto.output),
        held=held,
        nodes=tuple(nodes),
    )


def _node(proto: onnx.NodeProto, opsets: Mapping[str, int], outer: Mapping[str, Any]) -> Node:
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    op, version = f"{domain}.{proto.op_type}" if domain else proto.op_type, opsets.get(domain, 1)
    attributes = {**_defaults(proto.op_type, version, domain), **_attributes(proto, opsets, outer)}
    if op not in RULES and defs.has(proto.op_type, version, domain):
        body = defs.get_schema(proto.op_type, version, domain).function_body
        if body.node:
            attributes["body"], op = _body(body, attributes), FUNCTION
    return Node(op, proto.name or proto.op_type, tuple(proto.input), tuple(proto.output), attributes, version)


@functools.lru_cache(maxsize=1024)
def _defaults(op_type: str, version: int, domain: str) -> Mapping[str, Any]:
    """Return the defaults of an operator's attributes; those of later versions mean what there was before them."""
    newest = max(version, defs.onnx_opset_version() if not domain else version)
    found: dict[str, Any] = {}
    for each in (newest, version):
        known = defs.get_schema(op_type, each, domain).attributes if defs.has(op_type, each, domain) else {}
        found |= {name: _value(it.default_value, {}) for name, it in known.items() if it.default_value.type}
    return found


def _attributes(proto: onnx.NodeProto, opsets: Mapping[str, int], outer: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for each in proto.attribute:
        if not each.ref_attr_name:
            found[each.name] = _value(each, opsets)
        elif each.ref_attr_name in outer:
            found[each.name] = outer[each.ref_attr_name]
    return found


def _value(attribute: AttributeProto, opsets: Mapping[str, int]) -> Any:
    """Return an attribute as a plain value, an array, or a graph."""
    value = helper.get_attribute_value(attribute)
    match attribute.type:
        case AttributeProto.STRING:
            return value.decode(errors="replace")
        case AttributeProto.STRINGS:
            return tuple(each.decode(errors="replace") for each in value)
        case AttributeProto.INTS | AttributeProto.FLOATS:
            return tuple(value)
        case AttributeProto.TENSOR:
            return numpy_helper.to_array(value)
        case AttributeProto.GRAPH:
            return _graph(value, opsets, {})
    return value


def _body(function: onnx.FunctionProto, attributes: Mapping[str, Any]) -> Graph:
    """Return the graph that defines an operator, with its attributes filled in."""
    opsets = {each.domain: each.version for each in function.opset_import}
    held, nodes = {}, []
    for each in function.node:
        if each.op_type == "Constant":
            held[each.output[0]] = _constant_of(_attributes(each, opsets, attributes))
        else:
            nodes.append(_node(each, opsets, attributes))
    inputs = tuple(Input(name, None, np.dtype(np.float32)) for name in function.input)
    return Graph(inputs, tuple(function.output), held, tuple(nodes))


def _constant(proto: onnx.NodeProto) -> np.ndarray:
    return _constant_of({each.name: _value(each, {}) for each in proto.attribute})


def _constant_of(attributes: Mapping[str, Any]) -> np.ndarray:
    """Return what a ``Constant`` node holds; it has one attribute."""
    ((name, value),) = attributes.items()
    types = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if name == "value":
        found: np.ndarray = np.asarray(value)
        return found
    if name not in types:
        raise DeploycheckError(f"constants of the form `{name}` aren't supported", hint="write them as a dense tensor")
    return np.asarray(value, types[name])


def _dense(sparse: onnx.SparseTensorProto) -> np.ndarray:
    """Return a sparse tensor with its zeros."""
    values, places = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    if places.ndim == 1:
        dense.reshape(-1)[places] = values
    else:
        dense[tuple(places.T)] = values
    return dense


def _input(proto: onnx.ValueInfoProto) -> Input:
    kind = proto.type.tensor_type
    if not proto.type.HasField("tensor_type") or kind.elem_type == onnx.TensorProto.STRING:
        raise DeploycheckError(f"its input {proto.name!r} is not an array of numbers")
    shape = tuple(each.dim_value if each.HasField("dim_value") else None for each in kind.shape.dim)
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    return Input(proto.name, shape if kind.HasField("shape") else None, np.dtype(dtype))


def _check_operators(graph: Graph) -> None:
    """Raise for operators without a rule, all at once."""
    missing = sorted({node.op for node in graph.all_nodes()} - RULES.keys())
    if missing:
        raise DeploycheckError(
            f"it has operators that aren't supported: {', '.join(missing)}",
            hint="export the model without them, or give it as code, with `build` and `weights`",
        )
