"""Functions of arrays, answered by JAX and, exported to ONNX, by onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import onnx
import onnxruntime
from jax import export

from deploycheck.serving.runtimes._onnx_export import make_model

Function = Callable[..., Any]


def convert(functions: Mapping[str, Function], *arrays: Any) -> onnx.ModelProto:
    """Return functions of arrays, whose first axis is a batch of any size, as one model with an output for each."""
    (batch,) = export.symbolic_shape("batch")
    inputs = {f"x{at}": jax.ShapeDtypeStruct((batch, *each.shape[1:]), each.dtype) for at, each in enumerate(arrays)}

    def named(weights: Any, given: Any) -> dict[str, Any]:
        return {name: function(*(given[key] for key in inputs)) for name, function in functions.items()}

    closed, answer = jax.make_jaxpr(named, return_shape=True)({}, inputs)
    model = make_model(closed, {}, inputs, answer, batch)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto, *arrays: Any) -> dict[str, np.ndarray]:
    """Return the model's outputs by name."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results = session.run(None, {f"x{at}": each for at, each in enumerate(arrays)})
    return {output.name: result for output, result in zip(session.get_outputs(), results, strict=True)}


def check_all(functions: Mapping[str, Function], *arrays: Any, rtol: float = 2e-6, atol: float = 2e-6) -> None:
    """Fail unless both give the same answers, in the same types, to the arrays and to their first row alone."""
    model = convert(functions, *arrays)
    for rows in (arrays, tuple(each[:1] for each in arrays)):
        found = run(model, *rows)
        expected = jax.jit(lambda *given: {name: function(*given) for name, function in functions.items()})(*rows)
        for name, wanted in expected.items():
            assert (found[name].dtype, found[name].shape) == (wanted.dtype, wanted.shape), name
            np.testing.assert_allclose(found[name], wanted, rtol=rtol, atol=atol, err_msg=name)


def check(function: Function, *arrays: Any, **tolerance: float) -> None:
    """Fail as ``check_all`` does, for one function, which may return several arrays."""
    count = len(jax.tree.leaves(jax.eval_shape(function, *arrays)))
    each = {f"y{at}": lambda *given, at=at: jax.tree.leaves(function(*given))[at] for at in range(count)}
    check_all(each, *arrays, **tolerance)


def floats(*shape: int, seed: int = 0, scale: float = 3.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def whole(*shape: int, seed: int = 0, low: int = -7, high: int = 8, dtype: str = "int32") -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)
