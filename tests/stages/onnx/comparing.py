"""One operator, or a small model as text, evaluated by our reader and by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from deploycheck.stages.onnx.evaluate import evaluate
from deploycheck.stages.onnx.file import graph_of

OPSET = 21
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Each program runs once."""


def one_operator(
    op: str, *operands: Any, known: Sequence[int] = (), outputs: int = 1, opset: int = OPSET, **attributes: Any
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Return a model of one node, and its inputs. The operands at the places ``known`` are part of the model."""
    names = ["" if each is None else f"x{at}" for at, each in enumerate(operands)]
    given = {name: np.asarray(each) for name, each in zip(names, operands, strict=True) if name}
    held = {f"x{at}": given.pop(f"x{at}") for at in known}
    results = [f"y{at}" for at in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(op, names, results, name="node", **attributes)],
        "one",
        [_described(name, each) for name, each in given.items()],
        [onnx.ValueInfoProto(name=name) for name in results],
        [numpy_helper.from_array(each, name) for name, each in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return model, given


def _described(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def run(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Return what onnxruntime gives, without its own rewriting of the graph."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results: list[np.ndarray] = session.run(None, dict(inputs))
    return results


def check(
    op: str, *operands: Any, known: Sequence[int] = (), rtol: float = 2e-5, atol: float = 2e-6, **settings: Any
) -> None:
    """Fail unless an operator gives what onnxruntime gives: traced, and on values that are known while tracing."""
    model, inputs = one_operator(op, *operands, known=known, **settings)
    check_model(model, inputs, rtol=rtol, atol=atol)


def check_model(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray], **tolerance: float) -> None:
    """Fail unless a model gives what onnxruntime gives, in the same shapes and kinds of types."""
    wanted = run(model, inputs)
    graph = graph_of(model)
    traced = jax.jit(lambda given: list(map(jnp.asarray, evaluate(graph, given))), compiler_options=QUICKLY)({**inputs})
    for results in (traced, evaluate(graph, inputs)):
        for found, expected in zip(map(np.asarray, results), wanted, strict=True):
            assert (found.shape, found.dtype.kind) == (expected.shape, expected.dtype.kind)
            np.testing.assert_allclose(found.astype(np.float64), expected.astype(np.float64), **tolerance)


def floats(*shape: int, seed: int = 0, scale: float = 2.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def whole(*values: int, dtype: str = "int64") -> np.ndarray:
    return np.array(values, dtype)
