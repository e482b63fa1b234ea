"""What a network becomes for onnxruntime: the same bytes each time, nothing of the machine, and errors that help."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from jax import lax

from deploycheck.errors import DeploycheckError
from deploycheck.serving.runtimes._onnx_export import IR_VERSION, OPSET, PROGRAM, WEIGHTS
from deploycheck.serving.runtimes.onnxruntime import ONNXRUNTIME
from deploycheck.serving.signature import SIGNATURE, read_signature
from deploycheck.stages.network import Network, TensorSpec
from deploycheck.store.weights import read_weights
from tests.serving.runtimes.networks import INPUTS, NETWORKS

ROOT = Path(__file__).parents[3]
ROW = {"x": TensorSpec((4,), "float32")}


def written(network: Network, folder: Path, inputs: dict[str, TensorSpec] = INPUTS) -> Path:
    folder.mkdir(exist_ok=True)
    ONNXRUNTIME.export(network, inputs, "net", folder)
    return folder


def refused(call: Any, folder: Path) -> DeploycheckError:
    with pytest.raises(DeploycheckError) as caught:
        written(Network({}, lambda weights, inputs: {"y": call(inputs["x"])}), folder, ROW)
    assert not list(folder.iterdir())
    return caught.value


@pytest.mark.parametrize("form", NETWORKS)
def test_the_file_is_a_valid_model_whose_weights_are_in_the_other_file(form: str, tmp_path: Path) -> None:
    network = NETWORKS[form](0)
    written(network, tmp_path)
    onnx.checker.check_model(tmp_path / PROGRAM, full_check=True)
    model = onnx.load(tmp_path / PROGRAM, load_external_data=False)
    assert (model.opset_import[0].version, model.ir_version) == (OPSET, IR_VERSION)
    elsewhere = {each.name for each in model.graph.initializer if each.data_location == onnx.TensorProto.EXTERNAL}
    stored = read_weights(tmp_path / WEIGHTS)
    assert elsewhere == stored.keys() == network.weights.keys()
    for name, array in network.weights.items():
        np.testing.assert_array_equal(stored[name], array)
    (logits,) = model.graph.output
    assert [size.dim_param or size.dim_value for size in logits.type.tensor_type.shape.dim] == ["batch", 3]


def test_the_signature_names_the_runtime(tmp_path: Path) -> None:
    signature = read_signature(written(NETWORKS["nnx"](0), tmp_path) / SIGNATURE)
    assert (signature.runtime, signature.rounds) == ("onnxruntime", False)
    assert [(each.name, each.datatype, each.shape) for each in signature.inputs] == [("image", "FP32", (6, 6, 1))]
    assert [(each.name, each.datatype, each.shape) for each in signature.outputs] == [("logits", "FP32", (3,))]
    assert ONNXRUNTIME.lasts is None


EXPORT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.serving.runtimes.networks import NETWORKS, INPUTS
from deploycheck.serving.runtimes.onnxruntime import ONNXRUNTIME
ONNXRUNTIME.export(NETWORKS["nnx"](0), INPUTS, "net", Path(sys.argv[2]))
"""


def test_another_process_in_another_folder_gives_the_same_bytes_with_nothing_of_the_machine(tmp_path: Path) -> None:
    here, elsewhere = written(NETWORKS["nnx"](0), tmp_path / "here"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-c", EXPORT, str(ROOT), str(elsewhere)]
    subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONHASHSEED": "1"}, check=True)
    for file in here.iterdir():
        content = file.read_bytes()
        assert (elsewhere / file.name).read_bytes() == content, file.name
        for trace in (ROOT, sys.prefix, Path.home(), tmp_path, "site-packages", "networks"):
            assert str(trace).encode() not in content, (file.name, trace)
        assert not re.search(rb"\w\.pyc?\b", content), file.name


@pytest.mark.parametrize(
    ("call", "rounds"),
    [
        (lambda x: x @ jnp.ones((4, 3)), False),
        (lambda x: jnp.round(x), True),
        (lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), True),
        (lambda x: jnp.dot(x.astype(jnp.int8), jnp.ones((4, 3), jnp.int8), preferred_element_type=jnp.int32), True),
        (lambda x: lax.fori_loop(0, 2, lambda _, y: jnp.round(y), x), True),
    ],
    ids=["float32", "round", "bfloat16", "int8", "within-a-loop"],
)
def test_the_signature_says_whether_the_program_rounds_to_fewer_bits(call: Any, rounds: bool, tmp_path: Path) -> None:
    network = Network({}, lambda weights, inputs: {"y": call(inputs["x"])})
    assert read_signature(written(network, tmp_path, ROW) / SIGNATURE).rounds is rounds


def test_every_operation_without_a_form_is_named_at_once(tmp_path: Path) -> None:
    def call(x: Any) -> Any:
        wave = jnp.fft.fft(x).real
        return lax.fori_loop(0, 2, lambda _, y: lax.lgamma(y), wave) + jax.scipy.special.i0e(x)

    error = refused(call, tmp_path)
    assert error.what == (
        "the model can't be exported to ONNX, because these operations can't: bessel_i0e, "
        "convert_element_type (numbers of type complex64), fft, lgamma, real"
    )
    assert error.hint == "write these operations in another way, or serve it with `runtime: xla`"


def test_what_decides_no_output_is_left_out(tmp_path: Path) -> None:
    def apply(weights: Any, inputs: Any) -> dict[str, jax.Array]:
        jax.random.normal(jax.random.key(0), (3,))
        jnp.fft.fft(inputs["x"])
        return {"y": inputs["x"] * 2}

    model = onnx.load(written(Network({}, apply), tmp_path, ROW) / PROGRAM)
    assert [node.op_type for node in model.graph.node] == ["Mul", "Identity"]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x: x.reshape(7, -1), "can't be exported: "),
        (lambda x: x.sum(), "expected the batch as first axis"),
        (lambda x: x @ x.T, "expected the batch as first axis alone"),
        (lambda x: x.astype(jnp.bfloat16), "'y' is bfloat16, for which"),
        (lambda x: (x, x), "'y' is a tuple, expected one array"),
    ],
)
def test_what_no_runtime_can_export_is_refused_as_by_xla(call: Any, says: str, tmp_path: Path) -> None:
    assert says in refused(call, tmp_path).what


def test_without_the_extra_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "deploycheck.serving.runtimes._onnx_export")
    monkeypatch.delattr("deploycheck.serving.runtimes._onnx_export")
    with pytest.raises(DeploycheckError, match="the runtime onnxruntime needs onnx") as caught:
        written(NETWORKS["function"](0), tmp_path)
    assert caught.value.hint == "pip install 'deploycheck[onnx]'"
