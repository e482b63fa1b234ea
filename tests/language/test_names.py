"""Names of code are read from source: what is wrong is found before any of it runs."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path

import pytest

from deploycheck.language.names import Signature, check_types, source_file
from tests.language.writing import MINIMAL, Project, line_of, with_model, with_module

REPOSITORY = Path(__file__).parents[2]


def test_a_module_that_would_raise_and_write_a_file_is_not_run(project: Project) -> None:
    trace = project.root / "trace"
    source = f"open({str(trace)!r}, 'w').close()\nraise RuntimeError\ndef build(): ...\n"
    project.write(f"open({str(trace)!r}, 'w').close()\nraise RuntimeError\n", "specs/__init__.py")
    assert project.one(with_module(project, source))
    assert not trace.exists()
    assert "specs.made" not in sys.modules


def test_a_missing_module_is_refused_where_it_is_named(project: Project) -> None:
    text = with_model("specs.nothing:build")
    (error,) = project.errors(text).errors
    assert error.what == "there is no module specs.nothing"
    assert (error.place.line, error.place.column) == (line_of(text, "build:"), 10)


def test_a_wrong_name_is_refused_with_what_was_meant(project: Project) -> None:
    text = MINIMAL.replace("conv_classifier", "conv_clasifier")
    assert project.refused(text) == ["4: specs.models has no conv_clasifier [did you mean 'conv_classifier'?]"]


def test_a_wrong_argument_is_refused_with_what_was_meant(project: Project) -> None:
    text = MINIMAL.replace("{features: [32],", "{feature: [32], features: [32],")
    assert project.refused(text) == ["5: conv_classifier takes no 'feature' [did you mean 'features'?]"]


def test_a_missing_argument_is_refused(project: Project) -> None:
    assert project.refused(MINIMAL.replace("features: [32], ", "")) == ["4: conv_classifier needs features"]


@pytest.mark.parametrize(
    ("source", "given"),
    [
        ("def build(**given): ...\n", "{a: 1}"),
        ("def build(*, a, b=1): ...\n", "{a: 1}"),
        ("async def build(a=1, b=2): ...\n", "{b: 1}"),
        ("class build: ...\n", "{a: 1}"),
        ("import functools\n@functools.cache\ndef build(b): ...\n", "{a: 1}"),
        ("from elsewhere import build\n", "{a: 1}"),
        ("from elsewhere import other as build\n", "{a: 1}"),
        ("build = lambda a: a\n", "{a: 1}"),
        ("build: object = print\n", "{a: 1}"),
        ("if True:\n    def build(a): ...\n", "{a: 1}"),
        ("try:\n    import x\nexcept ImportError:\n    def build(a): ...\n", "{a: 1}"),
    ],
)
def test_every_way_to_define_a_name_is_found(project: Project, source: str, given: str) -> None:
    assert project.one(with_module(project, source, given=given))


@pytest.mark.parametrize(
    "source",
    ["build, other = print, print\n", "from specs.models import *\n", "for build in [print]: pass\n"],
)
def test_a_name_that_may_be_there_is_not_refused(project: Project, source: str) -> None:
    build = "specs.made:anything" if "*" in source else "specs.made:build"
    assert project.one(with_module(project, source, build))


def test_a_keyword_only_argument_without_a_default_is_required(project: Project) -> None:
    assert "build needs a" in project.refused(with_module(project, "def build(*, a, b=1): ...\n"))[0]


def test_an_argument_that_is_positional_only_cannot_be_given_by_name(project: Project) -> None:
    assert project.errors(with_module(project, "def build(a, /): ...\n", given="{a: 1}"))


def test_a_name_inside_of_a_function_is_not_found(project: Project) -> None:
    assert "has no build" in project.refused(with_module(project, "def outer():\n    def build(): ...\n"))[0]


@pytest.mark.parametrize(
    "source",
    [
        b"def build(:\n",
        b"\xff\xfe",
        b"x = '\0'\n",
        b"x = 1" + b" + 1" * 100_000,
        b"x = " + b"-" * 100_000 + b"1",
    ],
    ids=["syntax", "encoding", "nul", "deep", "deeper"],
)
def test_a_module_that_cannot_be_parsed_is_refused(project: Project, source: bytes) -> None:
    project.write(source, "specs/made.py")
    (error,) = project.errors(with_model("specs.made:build")).errors
    assert error.place.line == 4


def test_an_edited_module_is_read_again(project: Project) -> None:
    text = with_module(project, "def other(): ...\n")
    assert project.errors(text)
    project.write("def build(): return 1\n", "specs/made.py")
    assert project.one(text)


@pytest.mark.parametrize("path", ["models", "models:", ":build", "specs/models.py:build", "a.b:c:d", "a b:c", "1a:b"])
@pytest.mark.parametrize("where", ["build", "load"])
def test_what_is_not_an_import_path_is_refused(project: Project, path: str, where: str) -> None:
    old = {"build": "specs.models:conv_classifier", "load": "specs.data:digits"}[where]
    text = MINIMAL.replace(f"{where}: {old}", f'{where}: "{path}"')
    (error,) = project.errors(text).errors
    assert error.place.line == line_of(text, f"{where}:")


@pytest.mark.parametrize("value", ["3", "null", "[a]", "{a: b}", "true"])
@pytest.mark.parametrize("where", ["build", "load"])
def test_an_import_path_that_is_not_a_string_is_refused(project: Project, value: str, where: str) -> None:
    old = {"build": "specs.models:conv_classifier", "load": "specs.data:digits"}[where]
    text = MINIMAL.replace(f"{where}: {old}", f"{where}: {value}")
    (error,) = project.errors(text).errors
    assert error.place.line == line_of(text, f"{where}:")


def test_loading_a_spec_imports_neither_jax_nor_optax_nor_the_projects_code(project: Project) -> None:
    project.write(MINIMAL)
    code = (
        "import sys; from pathlib import Path; from deploycheck.language import load\n"
        "from tests.language.writing import VOCABULARY\n"
        "(spec,) = load(Path('specs/spec.yaml').resolve(), Path.cwd(), VOCABULARY)\n"
        "names = 'jax', 'jaxlib', 'flax', 'optax', 'specs', 'starlette', 'uvicorn'\n"
        "print(spec.name, [name for name in names if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project.root,
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == "digits []", done.stderr


class EditableFinder:
    """A finder like the one that setuptools registers for an editable install in a flat layout."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        return spec_from_file_location(name, self.folder / "__init__.py", submodule_search_locations=[str(self.folder)])


def test_a_package_that_another_finder_knows_is_found(
    project: Project, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "__init__.py").write_text("def build(a): ...\n")
    (folder / "data.py").write_text("def build(b): ...\n")
    assert "there is no module installed_flat" in project.refused(with_model("installed_flat:build", "{a: 1}"))[0]
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, EditableFinder("installed_flat", folder)])
    assert project.one(with_model("installed_flat:build", "{a: 1}"))
    assert project.one(with_model("installed_flat.data:build", "{b: 1}"))
    assert "build takes no 'a'" in project.refused(with_model("installed_flat.data:build", "{a: 1, b: 1}"))[0]
    assert source_file("installed_flat.data", project.root) == folder / "data.py"
    assert "installed_flat" not in sys.modules


def test_a_finder_that_raises_is_passed_over(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            raise KeyError(name)

    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    assert project.one(MINIMAL)


def test_a_module_in_a_namespace_package_is_found(project: Project) -> None:
    project.write("def build(a): ...\n", "space/inner/made.py")
    assert project.one(with_model("space.inner.made:build", "{a: 1}"))
    assert "space.inner is a folder without an __init__.py" in project.refused(with_model("space.inner:build"))[0]


@pytest.mark.parametrize("path", ["numpy.random.mtrand:RandomState", "yaml._yaml:CParser"])
def test_code_without_source_is_accepted_unread(project: Project, path: str) -> None:
    assert project.one(with_model(path, "{whatever: 1}"))
    assert source_file(path.partition(":")[0], project.root) is None


STANDARD = [
    *("os:system", "subprocess:run", "builtins:exec", "posix:system", "os.path:join", "importlib.util:find_spec"),
    *(
        "runpy:run_path",
        "concurrent.futures:ProcessPoolExecutor",
        "math:sqrt",
    ),
]


@pytest.mark.parametrize("path", STANDARD)
def test_code_of_the_standard_library_is_refused(project: Project, path: str) -> None:
    (error,) = project.errors(with_model(path, "{command: touch trace}")).errors
    assert error.what == f"{path.partition(':')[0]} is part of Python's standard library"
    assert error.place.text[error.place.column - 1 :].startswith(path)


@pytest.mark.parametrize(
    "text",
    [
        MINIMAL.replace("load: specs.data:digits", "load: os:system"),
        MINIMAL.replace("load: specs.data:digits", "load: specs.data:digits\n  preprocess: [{'os:system': {}}]"),
        MINIMAL + "compress: {variants: {a: {method: {'os:system': {}}}}}\n",
        MINIMAL + "metrics: {a: {use: os:system, kind: mean, direction: lower}}\n",
    ],
    ids=["load", "preprocess", "method", "metrics"],
)
def test_every_key_that_names_code_refuses_the_standard_library(project: Project, text: str) -> None:
    assert "os is part of Python's standard library" in project.refused(text)[0]


@pytest.mark.parametrize("source", ["import os\n", "import subprocess as os\n", "from importlib import util as os\n"])
def test_a_module_of_the_standard_library_is_not_reached_through_the_projects(project: Project, source: str) -> None:
    (refused,) = project.refused(with_module(project, source, "specs.made:os.system"))
    assert "from Python's standard library" in refused


def test_a_function_that_the_project_itself_takes_from_there_is_its_own(project: Project) -> None:
    assert project.one(with_module(project, "from os import system as build\n", given="{command: x}"))


def test_a_module_of_the_project_comes_before_one_of_the_standard_library_that_is_not_imported(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("def build(): ...\n", "nturl2path.py")
    text = with_model("nturl2path:build")
    monkeypatch.delitem(sys.modules, "nturl2path", raising=False)
    assert project.one(text)
    project.write("def system(command): ...\n", "os.py")
    assert "os is part of Python's standard library" in project.refused(with_model("os:system", "{command: x}"))[0]


def test_what_an_installed_package_puts_in_place_of_the_standard_library_is_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("def spawn(cmd): ...\n", "lib/site-packages/nturl2path.py")
    monkeypatch.delitem(sys.modules, "nturl2path", raising=False)
    monkeypatch.syspath_prepend(project.root / "lib/site-packages")
    assert "nturl2path is part of Python's standard library" in project.refused(with_model("nturl2path:spawn"))[0]


def test_a_module_that_was_removed_is_missing(project: Project) -> None:
    text = with_module(project, "def build(): ...\n")
    assert project.one(text)
    (project.root / "specs/made.py").unlink()
    assert "there is no module specs.made" in project.refused(text)[0]


@pytest.mark.parametrize(
    "source",
    ["with open('x') as build: pass\n", "if (build := print): pass\n", "match 1:\n    case build: pass\n"],
)
def test_a_name_that_a_statement_binds_is_found(project: Project, source: str) -> None:
    assert project.one(with_module(project, source, given="{a: 1}"))


def test_a_name_that_is_only_used_is_not_found(project: Project) -> None:
    assert "has no build" in project.refused(with_module(project, "print(build)\n"))[0]


def test_a_source_in_another_encoding_is_read(project: Project) -> None:
    project.write("# coding: latin-1\n# \xe9\ndef build(a): ...\n".encode("latin-1"), "specs/made.py")
    assert "build needs a" in project.refused(with_model("specs.made:build"))[0]


def test_the_reader_of_signatures_is_only_imported_where_code_is_named() -> None:
    code = "import sys, deploycheck.language; print('griffe._internal' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("value", "is_number"),
    [(3, True), (-0.5, True), (10**308, True), (10**350, False), (-(10**350), False), (True, False), ("3", False)],
    ids=lambda value: f"{value!r:.12}",
)
def test_a_number_is_what_a_float_can_hold(value: object, is_number: bool) -> None:
    signature = Signature(frozenset({"rate"}), frozenset(), False, {"rate": "float"})
    assert (check_types("adam", signature, {"rate": value}) == []) is is_number
