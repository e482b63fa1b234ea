"""What the documentation shows is true: its specs are valid, its Python runs, its commands exist."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from deploycheck import cli, evidence, language
from deploycheck.language import load
from deploycheck.language.source import parse
from deploycheck.runner.installed import extensions_from

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXTENSIONS = extensions_from((), ROOT)
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def blocks(kind: str) -> list[pytest.ParameterSet]:
    """Return every block of a kind, with its page and its line."""
    return [
        pytest.param(match[2], id=f"{page.relative_to(ROOT)}:{page.read_text()[: match.start()].count(chr(10)) + 1}")
        for page in PAGES
        for match in BLOCK.finditer(page.read_text())
        if match[1] == kind
    ]


def overlaid(under: dict, over: dict) -> dict:
    """Return ``over`` laid over ``under``; what ``expect`` and ``load`` show is all that is there."""
    both = {
        key: overlaid(under[key], value)
        if isinstance(under.get(key), dict) and isinstance(value, dict) and key != "expect"
        else value
        for key, value in over.items()
    }
    if "load" in over and "with" not in over:
        under = {key: value for key, value in under.items() if key != "with"}
    return {**under, **both}


@pytest.mark.parametrize("text", blocks("yaml"))
def test_a_spec_in_the_documentation_is_valid_or_a_part_of_one(text: str, tmp_path: Path) -> None:
    for name in (
        "specs/digits.yaml",
        "specs/standards/edge.yaml",
        "specs/models.py",
        "specs/data.py",
        "specs/metrics.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "patients.csv").touch()
    (tmp_path / "handed-over" / "digits").mkdir(parents=True)
    (tmp_path / "handed-over" / "digits" / "signature.json").write_text('{"runtime": "xla"}')
    path = tmp_path / "specs" / "spec.yaml"
    shown = parse(text, path, "shown").data
    is_whole = {"deploycheck", "data"} <= shown.keys() or ("deploycheck" in shown and "model" not in shown)
    if not is_whole:
        example = parse((ROOT / "specs/digits.yaml").read_text(), path, "example").data
        del example["extends"]  # what is shown may loosen the example
        text = json.dumps(overlaid(example, shown))
    path.write_text(text)
    load(path, tmp_path, EXTENSIONS.vocabulary)


@pytest.mark.parametrize("text", blocks("python"))
def test_python_in_the_documentation_compiles(text: str) -> None:
    names: dict[str, object] = {"__name__": "documentation"}
    exec(compile(text, "documentation", "exec"), names)
    assert any(callable(value) for value in names.values())


@pytest.mark.parametrize("text", blocks("sh"))
def test_commands_in_the_documentation_exist(text: str, pytestconfig: pytest.Config) -> None:
    parser = pytestconfig._parser
    for line in text.splitlines():
        for command in line.split("&&"):
            program, *arguments = shlex.split(command)
            match Path(program).name:
                case "deploycheck" if arguments[0] != "serve":
                    cli._parser().parse_args(arguments)
                case "pytest":
                    parser.parse_known_args(arguments)
                    options = [option for group in [parser._anonymous, *parser._groups] for option in group.options]
                    known = {name for option in options for name in option.names()}
                    assert {argument for argument in arguments if argument.startswith("--")} <= known
                case "deploycheck" | "pip" | "python3" | "pre-commit":
                    pass
                case other:
                    pytest.fail(f"unknown program {other}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(CODE.sub("", page.read_text())):
        assert (page.parent / target).exists(), target


def test_the_language_page_has_every_word() -> None:
    page = (ROOT / "docs/language.md").read_text()
    for names in (
        EXTENSIONS.loaders,
        EXTENSIONS.preprocessing,
        EXTENSIONS.methods,
        EXTENSIONS.runtimes,
        EXTENSIONS.samplers,
    ):
        assert not [name for name in names if f"`{name}`" not in page and f"{{{name}:" not in page]
    cells = re.findall(r"^\| (`.+?`) \|", page, re.MULTILINE)
    written = {name.removesuffix(".pNN") for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    assert EXTENSIONS.metrics.keys() <= written


@pytest.mark.parametrize(
    ("name", "schema"),
    [("spec", language.json_schema(EXTENSIONS.vocabulary)), ("evidence", evidence.json_schema())],
)
def test_the_published_schemas_are_current(name: str, schema: dict) -> None:
    published = ROOT / f"docs/reference/{name}.schema.json"
    assert json.loads(published.read_text()) == schema, f"run: deploycheck schema {name} > {published}"
