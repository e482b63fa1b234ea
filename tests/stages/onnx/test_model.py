"""A file as a model: what becomes a weight, which inputs it takes, and that all that follows works on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from jax import export
from onnx import numpy_helper, parser

from deploycheck.errors import DeploycheckError
from deploycheck.serving.runtimes import _onnx_export
from deploycheck.stages.kernels import find_kernels
from deploycheck.stages.methods.prune import PRUNE, PruneOptions
from deploycheck.stages.methods.quantize import QUANTIZE, QuantizeOptions
from deploycheck.stages.model import Model, to_network
from deploycheck.stages.network import Inputs
from deploycheck.stages.onnx.evaluate import evaluate
from deploycheck.stages.onnx.file import graph_of
from deploycheck.stages.onnx.model import read_model
from deploycheck.store.weights import read_weights
from tests.serving.runtimes.networks import INPUTS, NETWORKS
from tests.stages.onnx.comparing import floats, run

CNN = """
    <ir_version: 10, opset_import: ["": 21]>
    net (float[BATCH, 2, 6, 6] image) => (float[BATCH, 3] logits) {
        a = Conv<pads = [1, 1, 1, 1]>(image, kernel, bias)
        b = BatchNormalization(a, scale, shift, mean, variance)
        c = Relu(b)
        d = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(c)
        shape = Shape(d)
        zero = Constant<value = int64 {0}>()
        batch = Gather(shape, zero)
        axes = Constant<value = int64[1] {0}>()
        first = Unsqueeze(batch, axes)
        rest = Constant<value = int64[1] {-1}>()
        flat = Concat<axis = 0>(first, rest)
        e = Reshape(d, flat)
        f = Gemm<transB = 1>(e, dense, offset)
        half = Constant<value = float {0.5}>()
        g = Mul(f, half)
        h = Relu(g)
        logits = MatMul(h, head)
    }"""
"""A classifier with the chain of shapes with which PyTorch flattens."""
TENSORS = {
    "kernel": floats(8, 2, 3, 3, scale=0.3),
    "bias": floats(8, seed=1),
    "scale": floats(8, seed=2),
    "shift": floats(8, seed=3),
    "mean": floats(8, seed=4),
    "variance": np.abs(floats(8, seed=5)) + 0.5,
    "dense": floats(10, 72, seed=6, scale=0.2),
    "offset": floats(10, seed=7),
    "head": floats(10, 3, seed=8),
}
IMAGES = {"image": floats(5, 2, 6, 6, seed=9)}


def cnn(batch: str = "N") -> onnx.ModelProto:
    proto = parser.parse_model(CNN.replace("BATCH", batch))
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in TENSORS.items())
    return proto


def shapes(**inputs: Any) -> Inputs:
    given = inputs or IMAGES
    return {name: jax.ShapeDtypeStruct((2, *array.shape[1:]), array.dtype) for name, array in given.items()}


def read(proto: onnx.ModelProto, folder: Path, outputs: tuple[str, ...] = ("logits",), **inputs: Any) -> Model:
    onnx.save(proto, folder / "net.onnx")
    return read_model(folder / "net.onnx", shapes(**inputs), outputs)


def answer(model: Model, inputs: Any = IMAGES) -> np.ndarray:
    return np.asarray(jax.jit(model.apply)(model.params, model.state, dict(inputs))["logits"])


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return read(cnn(), tmp_path)


def test_floats_are_params_statistics_are_state_and_single_numbers_are_neither(model: Model) -> None:
    assert set(model.params) == {"kernel", "bias", "scale", "shift", "dense", "offset", "head"}
    assert set(model.state) == {"mean", "variance"}
    assert set(find_kernels(model)) == {"kernel", "dense", "head"}
    np.testing.assert_allclose(answer(model), run(cnn(), IMAGES)[0], rtol=1e-4, atol=1e-4)


def test_it_is_traced_for_a_batch_of_any_size(model: Model) -> None:
    (batch,) = export.symbolic_shape("batch")
    image = jax.ShapeDtypeStruct((batch, 2, 6, 6), np.float32)
    program = export.export(jax.jit(model.apply))(model.params, model.state, {"image": image})
    assert program.out_avals[0].shape == (program.in_avals[-1].shape[0], 3)
    np.testing.assert_allclose(program.call(model.params, model.state, IMAGES)["logits"], answer(model), rtol=1e-5)


def test_a_file_for_a_batch_of_one_takes_any(tmp_path: Path, model: Model) -> None:
    alone = read(cnn("1"), tmp_path)
    np.testing.assert_allclose(answer(alone), answer(model), rtol=1e-5, atol=1e-5)


def test_training_changes_what_inference_uses(model: Model) -> None:
    """Its gradient is that of the file's function, and what isn't trained stays."""

    def loss(params: Any) -> jax.Array:
        outputs, state = model.train(params, model.state, IMAGES, jax.random.key(0))
        assert state is model.state
        return jnp.square(outputs["logits"]).mean()

    value, gradient = jax.jit(jax.value_and_grad(loss))(model.params)
    assert all(np.abs(each).max() > 0 for each in jax.tree.leaves(gradient))
    stepped = jax.tree.map(lambda param, slope: param - 1e-7 * slope, model.params, gradient)
    assert loss(stepped) < value


@pytest.mark.parametrize(
    ("method", "options", "smaller"),
    [
        (QUANTIZE, QuantizeOptions(weights="int8"), 0.35),
        (QUANTIZE, QuantizeOptions(weights="int8", activations="int8"), 0.35),
        (PRUNE, PruneOptions.model_validate({"channels": "50 %"}), 0.5),
    ],
    ids=["weights", "activations", "channels"],
)
def test_methods_make_it_smaller_and_it_is_exported_then(
    model: Model, tmp_path: Path, method: Any, options: Any, smaller: float
) -> None:
    result = method.compress(model, options, None)
    assert method.structure(model.form, options, lambda *_: model).form.weights == result.form.weights
    sizes = [sum(array.nbytes for array in each.weights.values()) for each in (result, model)]
    assert sizes[0] / sizes[1] <= smaller
    network = to_network(result, lambda weights, inputs: inputs, {})
    _onnx_export.write(network, {"image": INPUTS_OF_CNN}, "net", tmp_path)
    assert (tmp_path / "model.onnx").exists()
    if method is QUANTIZE:
        np.testing.assert_allclose(answer(result), answer(model), atol=0.05 * np.abs(answer(model)).max())


INPUTS_OF_CNN = type(INPUTS["image"])((2, 6, 6), "float32")


@pytest.mark.parametrize("form", sorted(NETWORKS))
def test_what_our_exporter_writes_is_read_back_as_the_same_function(form: str, tmp_path: Path) -> None:
    network = NETWORKS[form](0)
    _onnx_export.write(network, INPUTS, "net", tmp_path)
    proto = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    weights = read_weights(tmp_path / "weights.safetensors")
    del proto.graph.initializer[:]
    held = onnx.load(tmp_path / "model.onnx", load_external_data=False).graph.initializer
    for tensor in held:
        array = np.asarray(weights[tensor.name]) if tensor.name in weights else numpy_helper.to_array(tensor)
        proto.graph.initializer.append(numpy_helper.from_array(array, tensor.name))
    inputs = {"image": floats(3, 6, 6, 1)}
    (found,) = evaluate(graph_of(proto), inputs)
    np.testing.assert_allclose(found, network.apply(network.weights, inputs)["logits"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"image": floats(1, 2, 6, 5)}, r"its input 'image' is \[2, 6, 6\] float32, the spec's is \[2, 6, 5\] float32"),
        ({"image": floats(1, 2, 6, 6).astype(np.uint8)}, r"the spec's is \[2, 6, 6\] uint8"),
        ({"image": floats(1, 6, 6)}, r"the spec's is \[6, 6\] float32"),
        ({"image": IMAGES["image"], "mask": floats(1, 2)}, "its inputs are 'image', those of the spec are 'image', 'm"),
    ],
)
def test_inputs_that_are_not_those_of_the_file_are_refused(
    tmp_path: Path, inputs: dict[str, np.ndarray], says: str
) -> None:
    with pytest.raises(DeploycheckError, match=says):
        read(cnn(), tmp_path, **inputs)


def test_a_fixed_batch_is_refused_and_one_input_may_have_another_name(tmp_path: Path, model: Model) -> None:
    with pytest.raises(DeploycheckError, match="the first axis of its input 'image' has the fixed size 4"):
        read(cnn("4"), tmp_path)
    renamed = read(cnn(), tmp_path, pixels=IMAGES["image"])
    np.testing.assert_array_equal(answer(renamed, {"pixels": IMAGES["image"]}), answer(model))


def test_an_error_of_a_node_is_located(tmp_path: Path) -> None:
    wrong = cnn()
    wrong.graph.initializer[6].CopyFrom(numpy_helper.from_array(floats(10, 71), "dense"))
    model = read(wrong, tmp_path)
    with pytest.raises(DeploycheckError, match=r"^net.onnx: its node f? ?\(?Gemm") as refused:
        answer(model)
    assert "can't be evaluated" in refused.value.what


TWO = """
    <ir_version: 10, opset_import: ["": 21]>
    net (int64[N, 5] ids, float[N, 3] more) => (float[N, 3] logits, float[N, 4] hidden) {
        positions = Constant<value = int64[5] {0, 1, 2, 3, 4}>()
        a = Gather(table, ids)
        b = Gather(table, positions)
        c = Add(a, b)
        hidden = ReduceMean<keepdims = 0>(c, axes)
        d = MatMul(hidden, head)
        masked = Add(d, mask)
        scale = DequantizeLinear(codes, step)
        e = Mul(masked, scale)
        logits = Add(e, more)
    }"""


def test_several_inputs_and_outputs_whole_numbers_masks_and_quantised_arrays(tmp_path: Path) -> None:
    proto = parser.parse_model(TWO)
    tensors = {
        "table": floats(7, 4),
        "axes": np.array([1]),
        "head": floats(4, 3, seed=1),
        "mask": np.array([0, -np.inf, 0], np.float32),
        "codes": np.array([3, 5, -7], np.int8),
        "step": np.float32(0.1),
    }
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(each), name) for name, each in tensors.items())
    inputs = {"more": floats(2, 3), "ids": np.array([[0, 1, 6, -1, 2], [3, 3, 3, 3, 3]])}
    model = read(proto, tmp_path, more=inputs["more"], ids=inputs["ids"].astype(np.int32))
    assert (set(model.params), set(model.state)) == ({"table", "head"}, {"codes"})
    outputs = model.apply(model.params, model.state, inputs)
    for name, wanted in zip(("logits", "hidden"), run(proto, inputs), strict=True):
        np.testing.assert_allclose(outputs[name], wanted, rtol=1e-5)
