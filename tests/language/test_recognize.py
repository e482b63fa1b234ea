"""Which files are specs."""

from __future__ import annotations

import difflib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploycheck.language import Recognition, recognize_file
from deploycheck.language.recognize import recognize
from deploycheck.language.source import MOST_BYTES
from tests.language.writing import MINIMAL


@pytest.mark.parametrize(
    "text",
    [
        "deploycheck: 1\n",
        "# top\n---\nname: x\ndeploycheck: 2\n",
        "'deploycheck': 1\n",
        '"deploycheck" : 1\n',
        "\ufeffdeploycheck: 1\n",
        '{"deploycheck": 1, "name": "x"}',
        '{"name": "x",\n "deploycheck": 1}\n',
        '{"name": "x",\n\t"deploycheck": 1}\n',
        "{name: x, deploycheck: 1}",
        "  deploycheck: 1\n  name: x\n",
        "\tdeploycheck: 1\n\tname: x\n",
        "? deploycheck\n: 1\n",
        "name: {a: [1, {b: 2}]}\n? deploycheck\n: 1\n",
        "a: *b: c\ndeploycheck: 1\n",
        "a: &b 1\nc: *b\ndeploycheck: 1\n",
        "a: [1\n? deploycheck\n: 1\n",
        "name: x\n---\ndeploycheck: 1\n",
        "- a\n---\ndeploycheck: 1\n",
        "name: \x07\ndeploycheck: 1\n",
    ],
)
def test_a_file_that_says_it_is_a_spec_is_one(text: str) -> None:
    assert recognize(text.encode()) is Recognition.SPEC


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be", "utf-8-sig", "latin-1"]
)
@pytest.mark.parametrize("form", ["yaml", "json", "indented"])
def test_a_spec_is_one_in_any_encoding(encoding: str, form: str) -> None:
    data = {"deploycheck": 1, "name": "x", "description": "größer"}
    text = {
        "yaml": "description: größer\ndeploycheck: 1\n",
        "json": json.dumps(data, ensure_ascii=False, indent=1),
        "indented": "  description: größer\n  deploycheck: 1\n",
    }[form]
    assert recognize(text.encode(encoding)) is Recognition.SPEC


@pytest.mark.parametrize(
    "key",
    ["deploychek", "deploy_check", "deploy-check", "Deploycheck", "DEPLOYCHECK", "deploycheck1", "depolycheck"],
)
def test_a_key_that_was_meant_so_is_one_too(key: str) -> None:
    for text in (f"name: x\n{key}: 1\n", f'{{"name": "x", "{key}": 1}}', f"  name: x\n  {key}: 1\n", f"{key}: [\n"):
        assert recognize(text.encode()) is Recognition.SPEC


@pytest.mark.parametrize(
    "text",
    [
        MINIMAL.replace("deploycheck: 1\n", ""),
        "name: x\nmodel: {}\ndata: {}\ntrain: {}\npromote: {}\n",
        "train:\n  expect: {accuracy: '>= 90 %'}\n",
        "- deploycheck: 1\n  name: x\n",
        "spec: {deploycheck: 1, name: x}\n",
        '[{"deploycheck": 1}]',
        "x: deploycheck: 1\n",
        "{{ deploycheck }}: [",
        "name: [x\n  deploycheck: 1\n",
    ],
)
def test_a_file_that_looks_like_a_spec_and_does_not_say_so_is_skipped(text: str) -> None:
    assert recognize(text.encode()) is Recognition.SKIPPED


WORKFLOW = """\
name: gate
on: [push]
jobs:
  deploycheck:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - run: pytest --deploycheck specs/
      - name: deploycheck
        with: {data: x, model: y}
"""
COMPOSE = "services:\n  model: {image: a, environment: {train: 1}}\n  deploycheck: {build: .}\nvolumes: {data: {}}\n"
MKDOCS = "nav: []\nmarkdown_extensions:\n  - x: {y: !!python/name:deploycheck.emoji }\nplugins: !ENV [DEPLOY, check]\n"
PRE_COMMIT = "repos:\n- repo: local\n  hooks: [{id: deploycheck, entry: deploycheck lint, language: system}]\n"
HELM = "{{- if .Values.model }}\ndata:\n  train: {{ .Values.data | quote }}\n{{- end }}\n"
SCHEMA = '{"$defs": {"data": {}}, "properties": {"deploycheck": {"const": 1}, "train": {}, "model": {"expect": 1}}}'


@pytest.mark.parametrize(
    "text",
    [
        *("", "a: 1\n", "# deploycheck: 1\n", "[deploycheck]", "deploycheck", "a: deploycheck\n", "deploy: 1\n"),
        *("check: 1\n", "a: deploychek\n", "[deploychek]", "train: {epochs: 3}\n", "data: [1, 2]\n", "\0\0\0\0"),
        *(WORKFLOW, COMPOSE, MKDOCS, PRE_COMMIT, HELM, SCHEMA),
        '{"accuracy": 0.9, "labels": [1, 2]}',
        "run: {expect: 1}\n",
    ],
)
def test_any_other_file_is_left_alone(text: str) -> None:
    assert recognize(text.encode()) is Recognition.OTHER


@given(st.text("deploychkDCx_-1", min_size=1, max_size=18))
def test_a_key_is_close_where_most_of_its_letters_are_in_the_same_order(word: str) -> None:
    is_close = bool(difflib.get_close_matches(word.lower(), ["deploycheck"], n=1, cutoff=0.8))
    assert (recognize(f'{{"name": 1, "{word}": 1}}'.encode()) is Recognition.SPEC) is is_close


def test_words_are_not_compared_where_they_share_too_few_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def note(word: str, *_: object, **__: object) -> list[str]:
        compared.append(word)
        return []

    monkeypatch.setattr(difflib, "get_close_matches", note)
    usual = json.dumps([f"{word}{number}" for word in ("endpoint", "checkout", "developed") for number in range(99)])
    anagrams = json.dumps([f"kcehcyolped{number}" for number in range(99)])
    assert recognize(usual.encode()) is recognize(anagrams.encode()) is Recognition.OTHER
    assert compared == []
    assert recognize(b"kcehcyolped: 1") is Recognition.OTHER
    assert compared == ["kcehcyolped"]


def test_a_file_too_large_for_a_spec_is_recognised_by_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("deploycheck: 1\ndescription: " + "x" * MOST_BYTES)
    (tmp_path / "b.json").write_text('{"rows": [' + "1, " * MOST_BYTES)
    assert recognize_file(tmp_path / "a.yaml") is Recognition.SPEC
    assert recognize_file(tmp_path / "b.json") is Recognition.OTHER


def test_a_file_that_cannot_be_read_is_reported_where_it_is_read(tmp_path: Path) -> None:
    assert recognize_file(tmp_path) is Recognition.SPEC


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_every_content_is_something(raw: bytes) -> None:
    assert recognize(raw) in Recognition
    assert recognize(b"deploycheck: 1\n" + raw.replace(b"\0", b"")) is Recognition.SPEC
