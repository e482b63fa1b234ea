"""The same gate, with onnxruntime in place of XLA; and what it promoted, served without it."""

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

SERVE = """\
serve:
  runtime: onnxruntime
  variants: [int8]
  batching: {max_size: 2}
  load: {rate: 500 /s, requests: 50}
  expect:
    parity: "<= 1e-3"
    recompilations: "== 0"
  properties: [deterministic, {batch_invariant: {examples: 5}}]
"""


def test_a_model_is_gated_on_onnxruntime_and_served_by_it(project: Project, tmp_path: Path) -> None:
    project.write(SPEC + SERVE)
    result = project.run("--deploycheck-promote", "spec.yaml")
    assert result.ret == 0
    assert set(project.verdicts().values()) == {"pass"}
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
