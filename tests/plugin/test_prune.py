"""Pruned variants are gated, exported and served like any other."""

from __future__ import annotations

from tests.plugin.conftest import SPEC, Project

VARIANTS = """\
    sparse: {prune: {sparsity: 80 %, schedule: gradual, finetune: {epochs: 4}}, expect: {sparsity: ">= 75 %"}}
    narrow: {prune: {channels: 75 %, finetune: {epochs: 4}}, expect: {parameters: "<= 1300"}}
    narrow-int8: {from: narrow, quantize: {weights: int8}}
"""
SERVED = """\
serve:
  variants: [narrow]
  batching: {max_size: 2}
  load: {rate: 400 /s, min_duration: 0 s}
  expect: {parity: "<= 1e-4", errors: "== 0"}
"""


def test_sparse_and_narrow_variants_keep_their_accuracy_and_one_is_served(project: Project) -> None:
    int8 = "    int8: {quantize: {weights: int8, activations: int8}}\n"
    project.write(SPEC.replace(int8, VARIANTS).replace("promote:\n", SERVED + "promote:\n"))
    result = project.run("spec.yaml")
    found = {f"{check['stage']}::{check['metric']}": check for check in project.spec["checks"]}
    assert result.ret == 0, {name: check["verdict"] for name, check in found.items()}
    assert found["compress[narrow]::parameters"]["value"] == 64 * 16 + 16 + 16 * 10 + 10
    assert found["compress[sparse]::completes"]["reason"].startswith("3,789 of 4,736 weights of kernels are zero")
    assert found["compress[narrow]::completes"]["reason"] == "1,210 of 4,810 parameters are left"
