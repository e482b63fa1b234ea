"""One model on two runtimes, gated side by side; and what was promoted, served without the gate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime  # noqa: F401 - before any run, as in conftest.py
from sklearn.datasets import load_digits

from deploycheck.serving.process import ServerProcess
from deploycheck.serving.protocol import decode_response, encode_request
from deploycheck.serving.signature import read_signature
from tests.plugin.conftest import SPEC, Project
from tests.serving.asking import ask

INT8 = "    int8: {quantize: {weights: int8, activations: int8}}\n"
ONNX = "    int8-onnx: {from: int8, runtime: onnxruntime}\n"
SERVE = """\
serve:
  variants: [int8, int8-onnx]
  batching: {max_size: 2}
  load: {rate: 500 /s, requests: 50}
  expect:
    parity: "<= 1e-3"
    recompilations: "== 0"
  properties: [{deterministic: {examples: 5}}, {batch_invariant: {examples: 5}}]
"""


def test_a_model_is_gated_on_two_runtimes_and_served_by_one_of_them(project: Project, tmp_path: Path) -> None:
    chosen = SPEC.replace(INT8, INT8 + ONNX).replace("to: staging\n", "to: staging\n  choose: int8-onnx\n")
    project.write(chosen + SERVE)
    result = project.run("--deploycheck-promote", "spec.yaml")
    assert result.ret == 0
    verdicts = project.verdicts()
    assert set(verdicts.values()) == {"pass"}
    by_variant = [
        {name.replace("int8-onnx", "int8") for name in verdicts if f"[{variant}]" in name}
        for variant in ("int8", "int8-onnx")
    ]
    assert by_variant[0] == by_variant[1] > {"serve[int8]::parity", "compress[int8]::size_ratio"}
    assert project.spec["decision"] == "promoted"
    folder = project.pytester.path / project.spec["promotion"]["path"]
    assert read_signature(folder / "signature.json").runtime == "onnxruntime"
    digits = load_digits()
    request = encode_request({"image": digits.images[:8].astype(np.float32)})
    with ServerProcess(folder, ["--max-batch", "8"], tmp_path / "log") as server:
        assert ask(server, "/v2/models/digits").json["platform"] == "onnx_onnxv1"
        reply = ask(server, "/v2/models/digits/infer", request.body, request.headers)
    answers = decode_response(reply.headers, reply.body)["logits"].argmax(axis=1)
    assert (answers == digits.target[:8]).mean() > 0.8
