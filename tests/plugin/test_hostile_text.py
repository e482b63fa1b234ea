"""Text from a project can't drive a terminal, Markdown or JUnit's XML, wherever it comes from."""

from __future__ import annotations

import json
import re
import unicodedata
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest

from deploycheck.registry import RegistryError
from deploycheck.registry.sqlite import SqliteRegistry
from tests.plugin.conftest import Project

HOSTILE = "x\x1b]0;t\x07\x9b31m\u202e<script>|![x](http://e.vil/p.png)@everyone\n# head `code`"
CODE = f"""
import numpy as np
import jax.numpy as jnp

HOSTILE = {HOSTILE!r}

def build():
    return {{"w": jnp.eye(4)[:, :3]}}, lambda params, x: x @ params["w"]

def build_failing():
    raise ValueError(HOSTILE)

def load(extra=None):
    labels = np.arange(300) % 3
    return np.eye(4)[labels].astype(np.float32), labels, {{"column": np.where(labels == 0, HOSTILE, "b")}}

def load_printing():
    print(HOSTILE)
    return load_failing()

def load_failing():
    raise ValueError(HOSTILE)

def share(labels, outputs):
    return labels < 0

def share_failing(labels, outputs):
    raise ValueError(HOSTILE)
"""
SPEC = """\
deploycheck: 1
name: plain
model: {build: "hostile:build", input: {x: {shape: [4], dtype: float32}}}
data: {load: "hostile:load", with: {extra: a}}
train:
  optimizer: {sgd: {learning_rate: 1e-3}}
  epochs: 1
  batch_size: 64
  expect: {share: ">= 90 %"}
metrics:
  share: {use: "hostile:share", kind: proportion, direction: higher}
"""
PROMOTE = "promote: {registry: 'sqlite:registry.db', model: plain, to: staging}\n"
CONFTEST = f"""
from deploycheck.checks import metric
from deploycheck.language import Dimension
from deploycheck.verdict import Exact

@metric("crashing", dimension=Dimension.COUNT, direction="lower", stages=["train"], sample=Exact)
def crashing(labels):
    raise ZeroDivisionError({HOSTILE!r})

def pytest_deploycheck_extensions():
    return [crashing]
"""
QUOTED = json.dumps(HOSTILE)
SOON = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()

SOURCES = {
    "the name of a spec": SPEC.replace("name: plain", f"name: {QUOTED}\ndescription: {QUOTED}\nowner: {QUOTED}"),
    "a waiver": SPEC + f"waive: {{train.share: {{because: {QUOTED}, until: {SOON}, by: {QUOTED}}}}}\n",
    "a value of a matrix": SPEC + f"matrix:\n  data.with.extra: [{QUOTED}, b]\n",
    "the name of a slice": SPEC.replace('{share: ">= 90 %"}', '{share: {threshold: ">= 90 %", slices: {by: column}}}'),
    "an exception of a loader": SPEC.replace('hostile:load", with: {extra: a}', 'hostile:load_failing"'),
    "what a loader prints": SPEC.replace('hostile:load", with: {extra: a}', 'hostile:load_printing"'),
    "an exception of a builder": SPEC.replace("hostile:build", "hostile:build_failing"),
    "an exception of a metric": SPEC.replace("hostile:share", "hostile:share_failing"),
    "an exception of a plugin": SPEC.replace('{share: ">= 90 %"}', '{crashing: "== 0"}').partition("metrics:")[0],
    "a key of a spec": SPEC + f"{QUOTED}: 1\n",
    "a value that the language refuses": SPEC.replace("epochs: 1", f"epochs: {QUOTED}"),
    "a threshold": SPEC.replace('">= 90 %"', QUOTED),
    "the source line of a mistake": SPEC.replace("epochs: 1", "epochs: one # \u202e"),
    "an import path": SPEC.replace('"hostile:load", with: {extra: a}', QUOTED),
}


def controls(text: str) -> set[str]:
    hidden = {char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp")}
    return hidden - {"\n", "\t", "\u2060"}


def check_markdown(text: str) -> None:
    assert not controls(text)
    for effect in ("<script", "![", "@everyone", "\n# head"):
        assert effect not in text, effect
    assert not re.search(r"(?<!\\)\]\(", text), "a link"
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} <= {6}


@pytest.mark.parametrize("source", SOURCES)
def test_text_of_a_project_has_no_effect_where_it_is_shown(project: Project, source: str) -> None:
    project.pytester.makepyfile(hostile=CODE)
    project.pytester.makeconftest(CONFTEST)
    project.write(SOURCES[source])
    shown = read_forms(project, "spec.yaml").stdout.str()
    assert re.search(r"\\u202e", shown), "the text is shown, without its controls"


def test_a_note_of_the_run_has_no_effect(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RegistryError(HOSTILE)

    monkeypatch.setattr(SqliteRegistry, "record_evidence", refuse)
    project.pytester.makepyfile(hostile=CODE)
    project.write(SPEC.replace(">= 90 %", "<= 90 %").replace("direction: higher", "direction: lower") + PROMOTE)
    shown = read_forms(project, "spec.yaml", "--deploycheck-fresh").stdout.str()
    assert re.search(r"^note: spec.yaml: .*\\u202e", shown, re.MULTILINE)


def test_a_file_whose_name_is_two_lines_is_refused_under_one(project: Project) -> None:
    project.pytester.makepyfile(hostile=CODE)
    project.write(SPEC, "a\nerror: forged.yaml")
    result = read_forms(project, ".")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "error: forged.yaml" not in result.stdout.lines
    result.stdout.fnmatch_lines(["a*error: forged.yaml: its path has control characters"])


def test_a_file_whose_name_has_controls_is_refused_under_a_name_without(project: Project) -> None:
    project.pytester.makepyfile(hostile=CODE)
    project.write(SPEC, "a\x1b[31m\u202e.yaml")
    result = read_forms(project, ".")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines([r"a\x1b[[]31m\u202e.yaml: its path has control characters"])


def read_forms(project: Project, *arguments: str) -> pytest.RunResult:
    """Run the gate; check the terminal, JUnit's file and the evidence."""
    result = project.run("-v", "-rA", "--junitxml=junit.xml", "--deploycheck-evidence=evidence.md", *arguments)
    assert not controls(result.stdout.str() + result.stderr.str())
    assert "INTERNALERROR" not in result.stdout.str()
    root = ElementTree.parse(project.pytester.path / "junit.xml")
    for element in root.iter():
        texts = [element.text or "", *element.attrib.values()]
        assert not controls("".join(texts)), element
    evidence = project.pytester.path / "evidence.md"
    if evidence.exists():
        check_markdown(evidence.read_text())
        assert not controls((project.pytester.path / "evidence.json").read_text())
    return result
