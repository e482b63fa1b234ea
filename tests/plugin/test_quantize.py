"""Variants whose rounding is chosen by examples, or learnt, are gated like any other."""

from __future__ import annotations

from tests.plugin.conftest import SPEC, Project

VARIANTS = """\
    gptq: {quantize: {weights: int4, gptq: {examples: 64}}}
    student: {distill: {model: {with: {features: 48}}, alpha: 0.5, quantize: {weights: int4}}}
"""


def test_variants_that_are_rounded_by_examples_or_trained_so_are_gated(project: Project) -> None:
    int8 = "    int8: {quantize: {weights: int8, activations: int8}}\n"
    project.write(SPEC.replace(int8, VARIANTS))
    result = project.run("spec.yaml")
    found = {f"{check['stage']}::{check['metric']}": check for check in project.spec["checks"]}
    assert result.ret == 0, {name: check["verdict"] for name, check in found.items()}
    reason = found["compress[gptq]::completes"]["reason"]
    assert reason.endswith("2 of 2 quantised weights are not what rounding to nearest gives")
    assert found["compress[student]::size_ratio"]["value"] < found["compress[gptq]::size_ratio"]["value"]
