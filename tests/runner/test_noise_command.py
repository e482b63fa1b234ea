"""The commands as they are typed: measure a model against itself, and warn of thresholds within that noise."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from deploycheck.cli import main
from deploycheck.runner.noise import FILE
from deploycheck.serving import machine_state, scenarios, throughput
from deploycheck.serving.bench import Bench
from deploycheck.serving.load import WarmUp

Captured = pytest.CaptureFixture[str]
CACHE = ".deploycheck"
CODE = """\
import jax, numpy as np


def build(width, key):
    params = {"out": jax.random.normal(key, (4, width))}
    return params, lambda params, x: x @ params["out"]


def load():
    labels = np.arange(120) % 3
    return (np.eye(4, dtype=np.float32)[labels], labels)
"""
SPEC = """\
deploycheck: 1
name: tiny
model:
  build: noise_code:build
  with: {width: 3}
  input: {x: {shape: [4], dtype: float32}}
data:
  load: noise_code:load
train:
  optimizer: {adam: {learning_rate: 0.05}}
  epochs: 1
  batch_size: 64
serve:
  variants: [trained]
  batching: {max_size: 2}
  load: {rate: 1000 /s, requests: 400}
  expect:
    throughput: ">= 99.99 % of baseline"
    latency.p90: "<= 100000000 % of baseline"
promote: {model: tiny, to: staging}
"""
SEEN = {"throughput", "latency.p50", "latency.p90"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a project that is quick to train and to load, on a machine that counts as undisturbed."""

    async def no_warm_up(*_: object) -> WarmUp:
        return WarmUp(0, steady=True)

    (tmp_path / "noise_code.py").write_text(CODE)
    (tmp_path / "spec.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(machine_state, "disturbance", lambda *_: "")
    monkeypatch.setattr(Bench, "warm_up", no_warm_up)
    monkeypatch.setattr(scenarios, "MOST_ROUNDS", 9)
    monkeypatch.setattr(scenarios, "TURN_S", 0.1)
    monkeypatch.setattr(throughput, "BLOCK_S", 0.03)
    return tmp_path


def test_the_noise_floor_is_measured_and_lint_warns_of_thresholds_within_it(folder: Path, capsys: Captured) -> None:
    assert main(["lint", "spec.yaml"]) == 0
    said = capsys.readouterr().out
    assert "not loaded yet, so the size of the test set and the shapes of the variants aren't known: spec.yaml" in said
    assert "0 errors, 0 warnings" in said

    assert main(["noise", "spec.yaml"]) == 0
    out, err = capsys.readouterr()
    assert "spec.yaml: trained against itself, in turn A B B A, 9 rounds, over " in out
    for metric in SEEN:
        line = re.search(rf"^  {metric} +(\S+) x \((\S+) to (\S+)\) +smallest .* see: (\S+) ?%$", out, re.MULTILINE)
        assert line, out
        ratio, low, high, smallest = (float(number.replace(",", "")) for number in line.groups())
        assert low < ratio < high
        assert smallest > 0
    assert re.search(r"^  latency.p99 .* none$", out, re.MULTILINE), f"9 rounds reach this percentile: {out}"
    assert "serve: A against B, round 9 of 9 at most" in err
    ((written,),) = [machine.values() for machine in json.loads((folder / CACHE / FILE).read_text()).values()]
    assert written["variant"] == "trained"
    assert set(written["smallest"]) == SEEN

    assert main(["lint", "."]) == 0
    said = capsys.readouterr().out
    assert ">= 99.99 % of baseline is within the noise of this machine" in said
    assert "0 errors, 1 warning" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["noise", "spec.yaml", "--variant", "int4"], "it doesn't serve int4\n  hint: there are: trained"),
        (["noise", "bare.yaml"], "it has no `serve`: nothing in it is timed"),
        (["noise", "../elsewhere.yaml"], "is outside of the project"),
        (["lint", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    folder: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    (folder / "bare.yaml").write_text(SPEC.partition("serve:")[0])
    (folder / "spec.yaml").write_text(SPEC)
    assert main(arguments) != 0
    out, err = capfd.readouterr()
    assert says in out + err
    assert "Traceback" not in out + err


def test_lint_counts_what_is_wrong_in_a_spec(folder: Path, capsys: Captured) -> None:
    (folder / "spec.yaml").write_text(SPEC.replace("batch_size: 64", "batch_size: 0"))
    assert main(["lint", "."]) == 1
    assert "1 error, 0 warnings" in capsys.readouterr().out
