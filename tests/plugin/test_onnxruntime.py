"""One model on two runtimes, gated side by side; and what was promoted, served without the gate."""

from __future__ import annotations

import json
import shutil
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


HANDED = """\
deploycheck: 1
name: RUNTIME
model:
  artifact: handed/RUNTIME
  sha256: DIGEST
  input: {image: {shape: [8, 8], dtype: float32}}
data:
  load: digits_data:digits
  split: {train: 0, validation: 0, test: 1}
train:
  expect: {accuracy: ">= 90 %"}
serve:
  runtime: RUNTIME
  variants: [trained]
  batching: {max_size: 2}
  load: {rate: 500 /s, requests: 50, min_duration: 0 s}
  expect: {parity: "<= 1e-3", errors: "== 0"}
promote: {registry: "sqlite:registry.db", model: digits, to: RUNTIME}
"""


def hand_over(project: Project, promoted: Path) -> None:
    """Write a spec for each of two exported models: what was promoted, and the same for the other runtime."""
    root = project.pytester.path
    step = next(step for step in project.spec["steps"] if step["step"] == "model[int8]")
    for runtime, folder in (("onnxruntime", promoted), ("xla", project.cache.parent / step["path"])):
        shutil.copytree(folder, root / "handed" / runtime)
        digest = json.loads((folder / "manifest.json").read_text())["digest"].removeprefix("sha256:")
        project.write(HANDED.replace("RUNTIME", runtime).replace("DIGEST", digest), f"{runtime}.yaml")


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
    hand_over(project, folder)
    assert project.run("--deploycheck-promote", "onnxruntime.yaml", "xla.yaml").ret == 0
    handed = project.evidence["specs"]
    assert [spec["decision"] for spec in handed] == ["promoted", "promoted"]
    assert {check["verdict"] for spec in handed for check in spec["checks"]} == {"pass"}
    assert not {"weights", "training"} & {step["step"] for spec in handed for step in spec["steps"]}
    digits = load_digits()
    request = encode_request({"image": digits.images[:8].astype(np.float32)})
    with ServerProcess(folder, ["--max-batch", "8"], tmp_path / "log") as server:
        assert ask(server, "/v2/models/digits").json["platform"] == "onnx_onnxv1"
        reply = ask(server, "/v2/models/digits/infer", request.body, request.headers)
    answers = decode_response(reply.headers, reply.body)["logits"].argmax(axis=1)
    assert (answers == digits.target[:8]).mean() > 0.8
