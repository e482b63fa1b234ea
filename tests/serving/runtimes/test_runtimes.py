"""A plugin's runtime, declared in a file, is what its export is both served and evaluated by."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from deploycheck.errors import DeploycheckError
from deploycheck.serving.opening import open_compiled
from deploycheck.serving.predict import BATCH, predict
from deploycheck.serving.process import ServerProcess
from deploycheck.serving.protocol import decode_response, encode_request
from deploycheck.serving.runtimes import Runtime, find_runtime
from deploycheck.serving.runtimes.xla import XLA
from deploycheck.stages.network import Network, TensorSpec
from deploycheck.store import write_manifest
from tests.serving.asking import ask
from tests.serving.models import KEY

PLUGIN = Path(__file__).with_name("numpy_runtime.py")
KERNEL = np.arange(12, dtype=np.float32).reshape(4, 3)
EXAMPLES = np.random.default_rng(0).normal(size=(70, 4)).astype(np.float32)


def linear(weights: Any, inputs: Any) -> dict[str, Any]:
    scores = inputs["x"] @ weights["kernel"]
    return {"scores": scores, "best": scores.argmax(axis=1).astype(np.int32)}


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """The linear model as the plugin's runtime exports it."""
    folder = tmp_path / "artifact"
    folder.mkdir()
    network = Network({"kernel": KERNEL}, linear)  # type: ignore[dict-item]
    find_runtime("numpy", [PLUGIN]).export(network, {"x": TensorSpec((4,), "float32")}, "linear", folder)
    write_manifest(folder, "model", KEY, {})
    return folder


def test_a_built_in_runtime_is_found_without_extensions() -> None:
    assert find_runtime("xla") is XLA
    assert isinstance(XLA, Runtime)


def test_a_runtime_is_found_in_the_file_that_declares_it() -> None:
    found = find_runtime("numpy", [PLUGIN])
    assert isinstance(found, Runtime)
    assert found.lasts is None


def test_an_unknown_runtime_is_an_error_that_lists_what_there_is() -> None:
    with pytest.raises(DeploycheckError, match="there is no runtime 'onyx', only xla, onnxruntime, numpy") as caught:
        find_runtime("onyx", [PLUGIN])
    assert "--extensions FILE" in caught.value.hint


def test_a_file_that_declares_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(DeploycheckError, match=r"empty\.py: its extensions can't be loaded"):
        find_runtime("numpy", [tmp_path / "empty.py"])


def test_runtimes_are_named_without_importing_jax_or_numpy() -> None:
    heavy = {"jax", "numpy", "onnx", "onnxruntime", "aiohttp", "starlette"}
    code = f"import sys, deploycheck.serving.runtimes; print({heavy} & {{*sys.modules}})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def test_a_plugins_runtime_evaluates_its_own_export(exported: Path, tmp_path: Path) -> None:
    save_file({"inputs/x": EXAMPLES}, tmp_path / "examples")
    predict(open_compiled(exported, [PLUGIN], (BATCH,)), tmp_path / "examples", tmp_path / "answers")
    answers = load_file(tmp_path / "answers")
    assert answers.keys() == {"scores", "best"}
    np.testing.assert_allclose(answers["scores"], EXAMPLES @ KERNEL, rtol=1e-6)
    np.testing.assert_array_equal(answers["best"], (EXAMPLES @ KERNEL).argmax(axis=1))


def test_without_the_plugin_the_evaluation_says_which_runtime_it_lacks(exported: Path) -> None:
    with pytest.raises(DeploycheckError, match="artifact: there is no runtime 'numpy', only xla"):
        open_compiled(exported, (), (BATCH,))


def test_a_plugins_runtime_serves_its_own_export(exported: Path, tmp_path: Path) -> None:
    with ServerProcess(exported, [], tmp_path / "log", [PLUGIN]) as server:
        metadata = ask(server, "/v2/models/linear").json
        assert metadata["platform"] == "numpy"
        assert [tensor["name"] for tensor in metadata["outputs"]] == ["scores", "best"]
        request = encode_request({"x": EXAMPLES[:5]})
        reply = ask(server, "/v2/models/linear/infer", request.body, request.headers)
    outputs = decode_response(reply.headers, reply.body)
    np.testing.assert_allclose(outputs["scores"], EXAMPLES[:5] @ KERNEL, rtol=1e-6)
    assert outputs["best"].dtype == np.int32
