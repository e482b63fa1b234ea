"""A network as an ONNX file: the traced program, equation by equation, with a batch of any size.

The weights are beside it as safetensors, in which they may be stored in fewer bytes; the file names them as external
data. No date, no path and no source line is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
from jax.extend import core
from jax.interpreters import partial_eval
from onnx import TensorProto, external_data_helper, helper

from deploycheck.errors import DeploycheckError
from deploycheck.serving.runtimes._exporting import (
    checked,
    input_metadata,
    output_metadata,
    refusing_untraceable,
    symbolic_arguments,
)
from deploycheck.serving.runtimes._onnx_graph import Graph, Tensor, described, names_read, reachable, renamed
from deploycheck.serving.runtimes._onnx_rules import RULES
from deploycheck.serving.runtimes._onnx_types import NARROW_FLOATS, NotInOnnx, held_as
from deploycheck.serving.signature import Signature, write_signature
from deploycheck.stages.network import Network, TensorSpec
from deploycheck.store.weights import write_weights

PROGRAM, WEIGHTS = "model.onnx", "weights.safetensors"
OPSET, IR_VERSION = 21, 10
"""The versions of ONNX that the file is written in: onnxruntime reads them from 1.20 on."""
BYTES = frozenset({"int8", "uint8", "int4", "uint4"})


def write(network: Network, inputs: Mapping[str, TensorSpec], name: str, folder: Path) -> None:
    """Export the network into ``folder``; the same network gives the same bytes.

    Raises ``DeploycheckError`` for a network that can't be traced with a batch of any size, whose outputs are not named
    arrays with the batch as their first axis, or that has operations without an ONNX form; nothing is written then.
    """
    batch, weights, arguments = symbolic_arguments(network, inputs)
    with refusing_untraceable():
        closed, answer = jax.make_jaxpr(checked(network), return_shape=True)(weights, arguments)
    signature = Signature(
        model=name,
        runtime="onnxruntime",
        inputs=input_metadata(inputs),
        outputs=tuple(output_metadata(key, array, batch) for key, array in answer.items()),
        rounds=any(_rounds(equation) for equation in equations(closed.jaxpr)),
    )
    model = make_model(closed, weights, arguments, answer, batch)
    (folder / PROGRAM).write_bytes(model.SerializeToString(deterministic=True))
    # onnxruntime refuses to be given what no node reads.
    used = [each.name for each in model.graph.initializer if external_data_helper.uses_external_data(each)]
    write_weights({key: network.weights[key] for key in used}, folder / WEIGHTS)
    onnx.checker.check_model(folder / PROGRAM)
    write_signature(signature, folder, opset=OPSET)


def make_model(
    closed: core.ClosedJaxpr,
    weights: Mapping[str, Any],
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    batch: Any,
) -> onnx.ModelProto:
    """Return a traced program, a function of weights and inputs by name that returns outputs by name, as a model.

    Of all three, the shapes and dtypes are given.

    Raises ``DeploycheckError`` that names every operation without an ONNX form.
    """
    jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True)
    graph = Graph(RULES, batch)
    try:
        held = {key: graph.input(key, each.shape, held_as(each.dtype)) for key, each in sorted(weights.items())}
        given = {key: graph.input(key, each.shape, _external(each.dtype)) for key, each in sorted(inputs.items())}
    except NotInOnnx as error:
        raise _refused([str(error)]) from error
    graph.measure_batch(next(iter(given.values())))
    invars: list[Any] = jaxpr.invars
    # JAX may compute in 32 bits what is given in 64.
    operands = [
        graph.cast(each, held_as(v.aval.dtype))
        for each, v in zip([*held.values(), *given.values()], invars, strict=True)
    ]
    results = graph.run(jaxpr, closed.consts, operands)
    if graph.missing:
        raise _refused(graph.missing)
    named = [
        renamed(graph, graph.cast(graph.full(result, output.shape), _external(output.dtype)), key)
        for result, (key, output) in zip(results, outputs.items(), strict=True)
    ]
    nodes = reachable(graph.nodes, [each.name for each in named])
    read = set().union(*map(names_read, nodes))
    whole = helper.make_graph(
        nodes,
        "model",
        [described(each, str(batch)) for each in given.values()],
        [described(each, str(batch)) for each in named],
        [
            *(each for each in graph.initializers if each.name in read),
            *(_elsewhere(each) for each in held.values() if each.name in read),
        ],
    )
    return helper.make_model(
        whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="deploycheck"
    )


def _external(dtype: Any) -> np.dtype[Any]:
    """Return the type of an input or output: float16 arrives as such, and is held as float32 within."""
    return np.dtype(dtype) if dtype.name == "float16" else held_as(dtype)


def _elsewhere(weight: Tensor) -> TensorProto:
    """Return a weight without its numbers, which are in another file."""
    proto = TensorProto(
        name=weight.name,
        dims=weight.shape,
        data_type=helper.np_dtype_to_tensor_dtype(weight.dtype),
        data_location=TensorProto.EXTERNAL,
    )
    proto.external_data.add(key="location", value=WEIGHTS)
    return proto


def _refused(missing: list[str]) -> DeploycheckError:
    return DeploycheckError(
        f"the model can't be exported to ONNX, because these operations can't: {', '.join(missing)}",
        hint="write these operations in another way, or serve it with `runtime: xla`",
    )


def equations(jaxpr: Any) -> Iterator[Any]:
    """Yield every equation of a program, those in the bodies of calls, loops and branches included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in core.jaxprs_in_params(equation.params):
            yield from equations(inner)


def _rounds(equation: Any) -> bool:
    """Whether an equation computes with fewer bits than float32, or rounds for that."""
    operands, results = ([v.aval.dtype.name for v in side] for side in (equation.invars, equation.outvars))
    if equation.primitive.name in ("dot_general", "conv_general_dilated") and BYTES.issuperset(operands):
        return True
    return equation.primitive.name == "round" or not NARROW_FLOATS.isdisjoint(results)
