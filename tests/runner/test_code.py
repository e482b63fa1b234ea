from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deploycheck.errors import DeploycheckError
from deploycheck.runner.code import code_fingerprint, load_object


@pytest.fixture
def project(tmp_path: Path) -> Path:
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("# raise SystemExit('imported')")
    (package / "model.py").write_text("import numpy\nfrom mine import layers\nfrom . import other\ndef build(): ...\n")
    (package / "layers.py").write_text("def layer():\n    import mine.deep\n")
    (package / "deep.py").write_text("x = 1\n")
    (package / "other.py").write_text("y = 1\n")
    (package / "unrelated.py").write_text("z = 1\n")
    return tmp_path


@pytest.mark.parametrize("file", ["model", "layers", "deep", "other", "__init__"])
def test_a_change_in_anything_the_code_imports_changes_its_fingerprint(project: Path, file: str) -> None:
    before = code_fingerprint("mine.model:build", project)
    path = project / "mine" / f"{file}.py"
    path.write_text(path.read_text() + "# changed\n")
    assert code_fingerprint("mine.model:build", project) != before


def test_what_it_does_not_import_does_not_matter(project: Path) -> None:
    before = code_fingerprint("mine.model:build", project)
    (project / "mine" / "unrelated.py").write_text("z = 2\n")
    assert code_fingerprint("mine.model:build", project) == before


def test_an_installed_package_counts_by_its_version_and_nothing_is_imported(project: Path) -> None:
    found = code_fingerprint("mine.model:build", project)
    assert "numpy (package)" in found
    assert not any(name.startswith("mine") for name in sys.modules)


def test_an_import_that_fails_says_how_to_see_why(project: Path) -> None:
    (project / "broken_module.py").write_text("1 / 0\n")
    with pytest.raises(DeploycheckError, match=r"train: can't import broken_module:x: ZeroDivisionError"):
        load_object("broken_module:x", project, "train")


def test_a_virtual_environment_in_the_project_is_no_part_of_its_code(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = project / ".venv" / "lib" / "python3" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "installed_here.py").write_text("import json\n")
    (project / "mine" / "model.py").write_text("import installed_here\n")
    monkeypatch.syspath_prepend(packages)
    found = code_fingerprint("mine.model:build", project)
    assert set(found) == {"mine", "mine.model"}
