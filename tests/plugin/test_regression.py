"""A model that answers with numbers, gated on the diabetes data of Efron and others (2004)."""

from __future__ import annotations

from typing import Any

from deploycheck.store import open_artifact
from tests.plugin.conftest import Project

PROGRESSION = """
import jax.numpy as jnp
from sklearn.datasets import load_diabetes


def patients():
    found = load_diabetes()
    return (20 * found.data).astype("float32"), found.target, {"sex": found.data[:, 1] > 0}


def linear(key):
    params = {"kernel": jnp.zeros((10, 1)), "bias": jnp.full(1, 150.0)}
    return params, lambda params, features: features @ params["kernel"] + params["bias"]
"""
SPEC = """\
deploycheck: 1
name: progression
model:
  build: progression:linear
  input: {features: {shape: [10], dtype: float32}}
data:
  load: progression:patients
  split: {train: 0.4, validation: 0.1, test: 0.5}
train:
  loss: squared_error
  optimizer: {adam: {learning_rate: 0.5}}
  epochs: 60
  batch_size: 32
  seeds: [0, 1]
  expect:
    rmse: "<= 70"
    mae: {threshold: "<= 60", slices: {by: sex, at_least: 50}}
    r2: ">= 0.2"
compress:
  variants:
    int8: {quantize: {weights: int8, activations: int8}}
  expect:
    rmse: "<= 1.1 x trained"
serve:
  variants: [int8]
  expect:
    parity: "<= 1e-2"
  batching: {max_size: 2}
  load: {rate: 500 /s, requests: 50}
promote:
  registry: sqlite:registry.db
  model: progression
  to: staging
"""


def found(project: Project) -> dict[str, Any]:
    return {f"{check['stage']}::{check['metric']}": check for check in project.spec["checks"]}


def test_a_model_of_numbers_is_gated_from_data_to_promotion(project: Project) -> None:
    project.pytester.makepyfile(progression=PROGRESSION)
    project.write(SPEC)
    result = project.run("--deploycheck-promote", "spec.yaml")
    assert result.ret == 0
    checks = found(project)
    assert 45 < checks["train::rmse"]["interval"][0] < checks["train::rmse"]["value"] < 65
    assert 0.3 < checks["train::r2"]["value"] < 0.7
    assert "sex " in checks["train::mae"]["reason"]
    assert 0.9 < checks["compress[int8]::rmse"]["value"] < 1.1
    assert project.spec["decision"] == "promoted"
    signature = open_artifact(project.pytester.path / project.spec["promotion"]["path"]).file("signature.json")
    assert '"name": "prediction"' in signature.read_text()


def test_one_that_learned_nothing_is_refused(project: Project) -> None:
    project.pytester.makepyfile(progression=PROGRESSION)
    project.write(SPEC.replace("learning_rate: 0.5", "learning_rate: 1e-6"))
    assert project.run("spec.yaml::train").ret == 1
    checks = found(project)
    assert checks["train::r2"]["verdict"] == "fail"
    assert abs(checks["train::r2"]["value"]) < 0.1
    assert checks["train::rmse"]["verdict"] == "fail"
