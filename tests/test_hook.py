"""Extensions from the files that declare them, where pytest isn't running."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.hook import objects_of

DECLARES = """\
from __future__ import annotations
import sys
from dataclasses import dataclass

imported = sys.modules.get(__name__)


@dataclass(frozen=True)
class Thing:
    name: str


def pytest_deploycheck_extensions():
    return [Thing({name!r})]
"""


def declare(folder: Path, name: str, file: str = "conftest.py") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / file
    path.write_text(DECLARES.format(name=name))
    return path


def test_the_objects_of_all_files_are_returned_in_order(tmp_path: Path) -> None:
    files = [declare(tmp_path / name, name) for name in "ba"]  # two modules of one name
    assert [found.name for found in objects_of(files)] == ["b", "a"]


def test_a_file_is_a_module_while_it_is_imported(tmp_path: Path) -> None:
    # A dataclass in a module with postponed annotations looks its own module up.
    (found,) = objects_of([declare(tmp_path, "x")])
    assert found.name == "x"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 / 0\n", "its extensions can't be loaded: ZeroDivisionError: division by zero"),
        ("def pytest_deploycheck_extensions():\n    raise KeyError('x')\n", "can't be loaded: KeyError: 'x'"),
        ("nothing = 1\n", "has no attribute 'pytest_deploycheck_extensions'"),
        ("def f(:\n", "its extensions can't be loaded: SyntaxError"),
    ],
)
def test_a_file_that_declares_nothing_is_named_with_the_cause(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "conftest.py"
    file.write_text(text)
    with pytest.raises(DeploycheckError) as raised:
        objects_of([file])
    assert raised.value.where == str(file)
    assert says in raised.value.what


@pytest.mark.parametrize(("name", "says"), [("data.csv", "is not a Python file"), ("gone.py", "FileNotFoundError")])
def test_what_is_not_a_python_file_is_refused(name: str, says: str, tmp_path: Path) -> None:
    if not name.startswith("gone"):
        (tmp_path / name).write_text("a,b\n")
    with pytest.raises(DeploycheckError, match=says):
        objects_of([tmp_path / name])


def test_a_module_that_could_not_be_imported_is_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "conftest.py"
    file.write_text("1 / 0\n")
    with pytest.raises(DeploycheckError):
        objects_of([file])
    declare(tmp_path, "mended, and of another length")
    (found,) = objects_of([file])
    assert found.name == "mended, and of another length"


@pytest.mark.parametrize("package", ["", "runtimes_of_ours"])
def test_a_file_can_import_what_pytest_lets_it_import(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / f"named{package}.py").write_text("NAME = 'from beside it'\n")
    file = declare(tmp_path / package, "x", f"declaring{package}.py")
    if package:
        (tmp_path / package / "__init__.py").touch()
    imports = f"import sys\nfrom named{package} import NAME\n"
    file.write_text(DECLARES.replace("import sys\n", imports).replace("{name!r}", "NAME"))
    (found,) = objects_of([file])
    assert found.name == "from beside it"


def test_what_is_beside_a_file_never_stands_for_the_standard_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    (tmp_path / "colorsys.py").write_text("raise AssertionError('the wrong module')\n")
    file = declare(tmp_path, "x")
    file.write_text(file.read_text().replace("import sys\n", "import colorsys, sys\n"))
    assert [found.name for found in objects_of([file])] == ["x"]
