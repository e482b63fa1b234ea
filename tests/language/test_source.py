"""Text to plain data: YAML 1.2 core, and what is refused where."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploycheck.language import SpecError, SpecErrors
from deploycheck.language.source import MOST_BYTES, Document, parse, read

SPEC = Path("specs/spec.yaml")


def plain(text: str) -> dict[str, Any]:
    return parse(text, SPEC, "spec.yaml").data


def value(text: str) -> Any:
    return plain(f"key: {text}\n")["key"]


def refused(text: str) -> SpecError:
    """Return the one error of a refused text."""
    with pytest.raises(SpecErrors) as caught:
        parse(text, SPEC, "spec.yaml")
    (error,) = caught.value.errors
    return error


def written(tmp_path: Path, raw: bytes) -> Document:
    path = tmp_path / "spec.yaml"
    path.write_bytes(raw)
    return read(path, "spec.yaml")


def refused_bytes(tmp_path: Path, raw: bytes) -> SpecError:
    with pytest.raises(SpecErrors) as caught:
        written(tmp_path, raw)
    (error,) = caught.value.errors
    return error


CORE = [
    ("1e-3", 0.001),
    ("1E3", 1000.0),
    ("-1.5e+2", -150.0),
    (".5", 0.5),
    ("5.", 5.0),
    ("1.0", 1.0),
    ("+12", 12),
    ("-12", -12),
    ("010", 10),
    ("0o10", 8),
    ("0x1F", 31),
    ("0b11", "0b11"),
    ("1_000", "1_000"),
    ("1:30", "1:30"),
    ("1.2.3", "1.2.3"),
    ("2027-01-31", "2027-01-31"),
    ("2027-01-31T10:00:00Z", "2027-01-31T10:00:00Z"),
    ("no", "no"),
    ("No", "No"),
    ("on", "on"),
    ("off", "off"),
    ("yes", "yes"),
    ("y", "y"),
    ("n", "n"),
    ("true", True),
    ("True", True),
    ("TRUE", True),
    ("tRUE", "tRUE"),
    ("false", False),
    ("FALSE", False),
    ("~", None),
    ("null", None),
    ("Null", None),
    ("NULL", None),
    ("", None),
    ("nULL", "nULL"),
    ("nan", "nan"),
    ("inf", "inf"),
    ("=", "="),
    ("5 %", "5 %"),
    ("'1'", "1"),
    ('"true"', "true"),
    ("'~'", "~"),
    ("''", ""),
]


@pytest.mark.parametrize(("text", "meant"), CORE)
def test_a_plain_scalar_means_what_the_core_schema_says(text: str, meant: object) -> None:
    read_as = value(text)
    assert read_as == meant
    assert type(read_as) is type(meant)


def test_a_block_scalar_is_a_string() -> None:
    assert value("|\n  12\n") == "12\n"


def test_a_merge_key_is_an_ordinary_key() -> None:
    assert plain("a: {<<: {b: 1}}") == {"a": {"<<": {"b": 1}}}


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "3:1", "duplicate key 'a'"),
        ("s:\n  a: 1\n  'a': 2\n", "3:3", "duplicate key 'a'"),
        ("s: {a: 1, a: 2}\n", "1:11", "duplicate key 'a'"),
        ("a: !!str 5\n", "1:4", "the tag tag:yaml.org,2002:str"),
        ("a: !!python/object/apply:os.system [ls]\n", "1:4", "tag"),
        ("a:\n  b: !mine 5\n", "2:6", "the tag !mine"),
        ("a: &x 5\n", "1:4", "anchors and aliases"),
        ("a: .nan\n", "1:4", ".nan is not a finite number"),
        ("a: [1, .inf]\n", "1:8", ".inf is not a finite number"),
        ("a: -.INF\n", "1:4", "-.INF is not a finite number"),
        ("a: 1e999\n", "1:4", "1e999 is not a finite number"),
        ("a: 1\n2: b\n", "2:1", "a key must be a string"),
        ("a: {true: b}\n", "1:5", "a key must be a string"),
        ("~: b\n", "1:1", "a key must be a string"),
        ("1e-3: b\n", "1:1", "a key must be a string"),
        ("? [a, b]\n: c\n", "1:3", "a key must be a string"),
        ("a: 1\n---\nb: 2\n", "2:1", "not YAML: but found another document"),
        ("- a\n- b\n", "1:1", "a spec is a mapping of sections"),
        ("only text\n", "1:1", "a spec is a mapping of sections"),
        ("", "1:1", "a spec is a mapping of sections"),
        ("# a comment\n", "1:1", "a spec is a mapping of sections"),
        ("a: [1, 2\nb: 3\n", "2:2", "not YAML"),
        ("a: b: c\n", "1:5", "not YAML"),
        ("a: \tb\n\tc: d\n", "2:1", "not YAML"),
        ("a: 'open\n", "2:1", "not YAML"),
    ],
)
def test_what_the_language_leaves_out_is_refused_at_its_place(text: str, place: str, words: str) -> None:
    error = refused(text)
    assert error.where == f"spec.yaml:{place}"
    assert words in error.what


def test_every_refusal_of_a_file_comes_at_once() -> None:
    with pytest.raises(SpecErrors) as caught:
        plain("a: .nan\nb: {c: 1, c: 2}\n3: d\n")
    assert [error.place.line for error in caught.value.errors] == [1, 2, 3]


def test_an_alias_is_refused_at_its_place() -> None:
    with pytest.raises(SpecErrors) as caught:
        plain("a: &x 5\nb: *x\n")
    assert [error.where for error in caught.value.errors] == ["spec.yaml:1:4", "spec.yaml:2:4"]


def test_an_alias_bomb_is_refused_before_it_expands() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(SpecErrors) as caught:
        plain("\n".join(lines))
    assert all("anchors and aliases" in error.what for error in caught.value.errors)
    assert caught.value.errors[0].place.line == 1


def test_signs_of_anchors_inside_of_strings_are_fine() -> None:
    assert plain("a: 'R&D *new* !'\nb: R&D\n") == {"a": "R&D *new* !", "b": "R&D"}


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 60 + "]" * 60,
        "a: " + "{b: " * 60 + "c" + "}" * 60,
        "\n".join(" " * depth + "a:" for depth in range(60)),
        "a:\n  " + "- " * 60 + "x",
        "a:\n  " + "? " * 60 + "x",
    ],
    ids=["[", "{", "block", "- - -", "? ? ?"],
)
def test_nesting_of_more_than_50_is_refused(text: str) -> None:
    assert "nested more than 50 deep" in refused(text).what


def test_nesting_of_40_is_fine() -> None:
    assert plain("a: " + "[" * 40 + "]" * 40)


@pytest.mark.parametrize("sign", ["- ", "? ", "[", "{"])
def test_a_bomb_of_nesting_neither_crashes_nor_hangs(sign: str) -> None:
    code = (
        "import sys; from pathlib import Path; from deploycheck.language import SpecErrors\n"
        "from deploycheck.language.source import parse\n"
        "try: parse('a:\\n  ' + sys.argv[1] * 400_000 + 'x', Path('x'), 'x')\n"
        "except SpecErrors: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code, sign], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "refused"), done.stderr[-500:]


def test_a_nul_is_refused_at_its_place(tmp_path: Path) -> None:
    assert refused_bytes(tmp_path, b"a: 1\nb: x\0y\n").where == "spec.yaml:2:5"


HIDDEN = ("\x1b", "\x07", "\x7f", "\x80", "\x85", "\x9b", "\u2028", "\u202a", "\u202e", "\u2066", "\u2069")


@pytest.mark.parametrize("character", HIDDEN, ids=ascii)
@pytest.mark.parametrize("text", ["a: 1\nb: x{}y\n", "a: 1\n#: x{}y\n", "a: 1\nx{}y: 1\n", "a: 1\nb: 'x{}y'\n"])
def test_a_character_that_hides_or_forges_text_is_refused_at_its_place(
    character: str, text: str, tmp_path: Path
) -> None:
    raw = text.format(character)
    error = refused_bytes(tmp_path, raw.encode())
    assert error.place.line == 2
    assert error.place.column == raw.partition("\n")[2].find(character) + 1
    assert repr(character) in error.what


@pytest.mark.parametrize(
    "escape", ["\\x1b", "\\e", "\\0", "\\x9b", "\\N", "\\u202e", "\\u2066", "\\L", "\\a", "\\r", "\\r\\n"]
)
@pytest.mark.parametrize("text", ['a: 1\nb: "x{}y"\n', 'a: 1\n"x{}y": 1\n', 'a: 1\nb: [1, {{c: "{}"}}]\n'])
def test_an_escape_of_such_a_character_is_refused_too(escape: str, text: str, tmp_path: Path) -> None:
    error = refused_bytes(tmp_path, text.format(escape).encode())
    assert error.place.line == 2
    assert "can't be part of a text" in error.what


@pytest.mark.parametrize("text", ["größer", "日本語", "שלום", "e\u0301", "\u00a0", "\u200d", "🙂", "\t"])
def test_every_other_character_stays(text: str) -> None:
    assert value(f'"x{text}y"') == f"x{text}y"


def test_bad_utf8_is_refused_on_its_line(tmp_path: Path) -> None:
    error = refused_bytes(tmp_path, b"a: 1\nb: 2\nc: \xff\n")
    assert (error.place.line, error.what) == (3, "is not UTF-8")


def test_a_byte_order_mark_is_fine(tmp_path: Path) -> None:
    assert written(tmp_path, b"\xef\xbb\xbfa: 1\n").data == {"a": 1}


def test_carriage_returns_are_fine(tmp_path: Path) -> None:
    document = written(tmp_path, b'a: 1\r\nb: 2\r\nc: "x\r\n  y"\r\nd: |\r\n  x\r\n')
    assert document.data == {"a": 1, "b": 2, "c": "x y", "d": "x\n"}
    assert document.place(("b",)).line == 2


def test_a_file_of_more_than_a_megabyte_is_refused(tmp_path: Path) -> None:
    written(tmp_path, b"a: 1\n#" + b"x" * (MOST_BYTES - 6))
    error = refused_bytes(tmp_path, b"a: 1\n#" + b"x" * (MOST_BYTES - 5))
    assert "larger than 1,000,000 bytes" in error.what
    assert error.where == "spec.yaml:1:1"


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SpecErrors) as caught:
        read(tmp_path / name, "spec.yaml")
    assert "can't be read" in caught.value.errors[0].what


def test_a_place_is_where_the_value_or_the_key_is() -> None:
    document = parse("é: 1\na:\n  b: [10, {c: 3}]\n", SPEC, "spec.yaml")
    assert (document.place(("a", "b", 1, "c")).line, document.place(("a", "b", 1, "c")).column) == (3, 15)
    assert document.place(("a", "b", 1, "c"), key=True).column == 12
    assert document.place(("a", "b")).text == "  b: [10, {c: 3}]"


def test_the_place_of_a_part_that_is_missing_is_the_nearest_around_it() -> None:
    document = parse("a:\n  b: 1\n", SPEC, "spec.yaml")
    assert document.place(("a", "z", "y")) == document.place(("a",))


def test_an_error_shows_the_line_and_a_caret_under_the_column() -> None:
    lines = str(refused("a: 1\nbe: .nan\n")).splitlines()
    assert lines[0] == "spec.yaml:2:5: .nan is not a finite number"
    assert lines[1].index(".nan") == lines[2].index("^")
