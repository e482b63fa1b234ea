"""What an artifact comes to against itself, measured and remembered, by the commands as they are typed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from deploycheck.cli import CACHE, main
from deploycheck.errors import DeploycheckError
from deploycheck.runner import measure
from deploycheck.runner.noise import FILE, floors_of
from deploycheck.serving import quiet
from tests.plugin.conftest import DATA, NET, SPEC
from tests.test_plan import HEAD, plan

Captured = pytest.CaptureFixture[str]
SERVED = """\
serve:
  variants: [int8]
  batching: {max_size: 2}
  load: {rate: 1000 /s, requests: 400}
  expect:
    throughput: ">= 99.99 % of baseline"
    latency.p90: "<= 100000 % of baseline"
"""


SEEN = {"throughput", "latency.p50", "latency.p90"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a project that is quick to train, on a machine that passes for quiet."""
    (tmp_path / "noise_net.py").write_text(NET)
    (tmp_path / "noise_data.py").write_text(DATA)
    spec = SPEC.replace("net:", "noise_net:").replace("digits_data:", "noise_data:").replace("epochs: 12", "epochs: 2")
    (tmp_path / "spec.yaml").write_text(spec + SERVED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(quiet, "disturbance", lambda *_: "")
    monkeypatch.setattr(measure, "MOST_ROUNDS", 9)
    monkeypatch.setattr(measure, "TURN_S", 0.1)
    return tmp_path


def test_the_noise_floor_is_measured_and_lint_warns_of_what_lies_within_it(folder: Path, capsys: Captured) -> None:
    assert main(["lint", "spec.yaml"]) == 0
    said = capsys.readouterr().out
    assert "not loaded yet, so that the size of its test set isn't known: spec.yaml" in said
    assert "0 errors, 0 warnings" in said

    assert main(["noise", "spec.yaml"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("spec.yaml: int8 against itself, in turn A B B A, 9 rounds\n")
    for metric in SEEN:
        line = re.search(rf"^  {metric} +(\S+) x \((\S+) to (\S+)\) +smallest .* see: (\S+) ?%$", out, re.MULTILINE)
        assert line, out
        ratio, low, high, smallest = map(float, line.groups())
        assert low < ratio < high
        assert smallest > 0
    assert re.search(r"^  latency.p99 .* none$", out, re.MULTILINE)  # so few rounds don't reach so far out
    assert "serve: A against B, round 9 of 9 at most" in err
    written = json.loads((folder / CACHE / FILE).read_text())
    assert written["spec.yaml"]["variant"] == "int8"
    assert set(written["spec.yaml"]["smallest"]) == SEEN

    assert main(["lint", "."]) == 0
    said = capsys.readouterr().out
    assert ">= 99.99 % of baseline lies within the noise of this machine" in said
    assert "0 errors, 1 warning" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["noise", "spec.yaml", "--variant", "int4"], "it serves no int4\n  hint: there are: int8"),
        (["noise", "bare.yaml"], "it has no `serve`: nothing in it is timed"),
        (["noise", "../elsewhere.yaml"], "lies outside of this folder"),
        (["lint", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_measured_is_refused(folder: Path, capsys: Captured, arguments: list[str], says: str) -> None:
    (folder / "bare.yaml").write_text((folder / "spec.yaml").read_text().partition("serve:")[0])
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert says in out + err
    assert "Traceback" not in out + err


def test_lint_counts_what_is_wrong_in_a_spec(folder: Path, capsys: Captured) -> None:
    (folder / "spec.yaml").write_text((folder / "spec.yaml").read_text().replace("batch_size: 64", "batch_size: 0"))
    assert main(["lint", "."]) == 1
    assert "1 error, 0 warnings" in capsys.readouterr().out


def test_what_was_remembered_and_is_damaged_is_named(tmp_path: Path) -> None:
    made = plan(HEAD, tmp_path)
    assert floors_of(made, tmp_path) == {}
    (tmp_path / FILE).write_text("{")
    with pytest.raises(DeploycheckError, match="delete it, and measure again"):
        floors_of(made, tmp_path)
