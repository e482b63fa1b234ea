"""Which sources and which libraries a step depends on, read without importing any of the user's code."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from deploycheck.runner.code import PACKAGE, CodeOf, code_of, is_installed, own_code_of, versions, versions_of_module
from deploycheck.runner.digests import Digests


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


def found_in(root: Path, module: str = "mine.model") -> CodeOf:
    return code_of([module], root, Digests(root / "digests.json"))


@pytest.mark.parametrize("file", ["model", "layers", "deep", "other", "__init__"])
def test_a_change_in_anything_the_code_imports_changes_its_digest(project: Path, file: str) -> None:
    before = found_in(project).sources
    path = project / "mine" / f"{file}.py"
    path.write_text(path.read_text() + "\nchanged = 1\n")
    after = found_in(project).sources
    (changed,) = [name for name in before if before[name] != after[name]]
    assert changed == {"__init__": "mine"}.get(file, f"mine.{file}")


def test_a_comment_changes_nothing(project: Path) -> None:
    before = found_in(project)
    path = project / "mine" / "deep.py"
    path.write_text("# one\n" + path.read_text())
    assert found_in(project) == before


def test_what_it_does_not_import_does_not_matter(project: Path) -> None:
    before = found_in(project)
    assert "mine.unrelated" not in before.sources
    (project / "mine" / "unrelated.py").write_text("z = 2\n")
    assert found_in(project) == before


def test_what_only_type_checkers_import_does_not_matter(project: Path) -> None:
    text = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import mine.unrelated\nelse:\n    import mine.deep\n"
    )
    (project / "mine" / "model.py").write_text(text)
    assert set(found_in(project).sources) == {"mine", "mine.model", "mine.deep"}


def test_an_installed_package_counts_by_its_version_and_nothing_is_imported(project: Path) -> None:
    found = found_in(project)
    assert found.libraries["numpy"] == metadata.version("numpy")
    assert not any(name.startswith("numpy") for name in found.sources)
    assert not any(name.split(".")[0] == "mine" for name in sys.modules)


def test_a_module_that_is_not_there_is_left_out(project: Path) -> None:
    (project / "mine" / "model.py").write_text("import mine.gone, no_such_library\n")
    assert found_in(project) == CodeOf({name: found_in(project).sources[name] for name in ("mine", "mine.model")}, {})


def test_modules_that_import_each_other_are_each_found_once(project: Path) -> None:
    (project / "mine" / "deep.py").write_text("import mine.model\n")
    assert set(found_in(project).sources) == {"mine", "mine.model", "mine.layers", "mine.deep", "mine.other"}


def test_a_relative_import_starts_at_its_package(project: Path) -> None:
    inner = project / "mine" / "inner"
    inner.mkdir()
    (inner / "__init__.py").write_text("from . import near\n")
    (inner / "near.py").write_text("from ..deep import x\nfrom .. import other\n")
    assert set(found_in(project, "mine.inner").sources) == {
        *("mine", "mine.inner", "mine.inner.near", "mine.deep", "mine.other")
    }


def test_a_module_outside_the_project_is_the_users_too(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = project.parent / f"{project.name}-elsewhere"
    elsewhere.mkdir()
    (elsewhere / "shared_layers.py").write_text("x = 1\n")
    (project / "mine" / "model.py").write_text("import shared_layers\n")
    monkeypatch.syspath_prepend(elsewhere)
    assert "shared_layers" in found_in(project).sources


def test_a_virtual_environment_in_the_project_is_no_part_of_its_code(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = project / ".venv" / "lib" / "python3" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "installed_here.py").write_text("import json\n")
    (project / "mine" / "model.py").write_text("import installed_here\n")
    monkeypatch.syspath_prepend(packages)
    assert set(found_in(project).sources) == {"mine", "mine.model"}


def test_our_own_code_counts_by_module_with_the_libraries_that_compute(tmp_path: Path) -> None:
    found = own_code_of(["deploycheck.steps.training"], Digests(tmp_path / "digests.json"))
    assert {"deploycheck.steps.training", "deploycheck.steps.kind", "deploycheck.stages.train"} <= set(found.sources)
    assert all(name.partition(".")[0] == "deploycheck" for name in found.sources)
    assert {"jax", "numpy", "optax"} <= found.libraries.keys()
    assert not {"filelock", "griffelib", "pytest"} & found.libraries.keys()


def test_a_step_does_not_depend_on_what_comes_after_it(tmp_path: Path) -> None:
    sources = own_code_of(["deploycheck.steps.training"], Digests(tmp_path / "digests.json")).sources
    later = ("deploycheck.runner", "deploycheck.plugin", "deploycheck.cli", "deploycheck.plan")
    assert [name for name in sources if name.startswith(later)] == []


@pytest.mark.parametrize(
    ("file", "installed"),
    [
        (Path(pytest.__file__), True),
        (Path(metadata.__file__), True),
        (PACKAGE / "plan.py", True),
        (Path("/project/net.py"), False),
        (Path("/project/.venv/lib/python3/site-packages/net.py"), True),
    ],
)
def test_what_is_installed_is_known_by_its_folder(file: Path, installed: bool) -> None:
    assert is_installed(file) is installed


def test_a_link_belongs_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "theirs.py").write_text("")
    (tmp_path / "linked.py").symlink_to(tmp_path / "site-packages" / "theirs.py")
    assert is_installed(tmp_path / "linked.py")


def test_a_library_brings_what_it_requires_and_python_itself_has_no_version() -> None:
    assert {"flax", "jax", "optax"} <= versions_of_module("flax.nnx").keys()
    assert versions_of_module("json") == {}
    assert versions("numpy", "no-such-library") == {"numpy": metadata.version("numpy"), "no-such-library": "none"}
