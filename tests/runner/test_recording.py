"""The code that a step used is recorded, and a change in it is found; so is what makes a record useless."""

from __future__ import annotations

import os
import py_compile
import shutil
from pathlib import Path

import pytest

from deploycheck.runner.digests import ABSENT, Digests
from deploycheck.runner.recording import find_changed, is_stale, read_log
from tests.runner.recorded import EDIT, Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.make(tmp_path)


def test_a_module_imported_by_a_name_that_no_source_has_is_recorded(project: Project) -> None:
    project.write("layers/__init__.py")
    project.write("layers/dense.py", "x = 1\n")
    used = project.record("import importlib\ndef main():\n    importlib.import_module('layers.' + 'esned'[::-1])\n")
    assert set(used["modules"]) == {"step_code", "layers", "layers.dense"}
    assert project.changed(used) == ""
    project.write("layers/dense.py", "x = 2\n")
    assert project.changed(used) == "source layers/dense.py"


def test_a_module_outside_of_the_project_is_recorded(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    file = project.outside / "outside_code.py"
    file.write_text("x = 1\n")
    used = project.record("import outside_code\ndef main(): ...\n", project.outside)
    assert "outside_code" in used["modules"]
    monkeypatch.syspath_prepend(project.outside)
    assert project.changed(used) == ""
    file.write_text("x = 2\n")
    assert project.changed(used) == "source ../outside/outside_code.py"


def test_a_module_that_nothing_finds_any_more_has_changed(project: Project) -> None:
    project.write("layers.py", "x = 1\n")
    used = project.record("import layers\ndef main(): ...\n")
    (project.root / "layers.py").unlink()
    assert project.changed(used) == "source layers"


@pytest.mark.parametrize(
    "code",
    [
        "sys.modules['other'] = module = module_from_spec(spec); spec.loader.exec_module(module)",
        "spec.loader.exec_module(module_from_spec(spec))",
        "runpy.run_path(path)",
        "runpy.run_path(path); runpy.run_path(path)",
    ],
)
def test_a_module_loaded_from_its_file_is_recorded_by_its_file(code: str, project: Project) -> None:
    file = project.outside / "addition.py"
    file.write_text("x = 1\n")
    used = project.record(
        "import runpy, sys\nfrom importlib.util import module_from_spec, spec_from_file_location\n"
        "def main():\n"
        f"    path = {str(project.outside)!r} + '/addi' + 'tion.py'\n"
        "    spec = spec_from_file_location('other', path)\n"
        f"    {code}\n"
    )
    assert set(used["files"]) == {"../outside/addition.py"}
    file.write_text("x = 1  # a comment\n")
    assert project.changed(used) == ""
    file.write_text("x = 2\n")
    assert project.changed(used) == "source ../outside/addition.py"


@pytest.mark.parametrize(
    "code",
    [
        "runpy.run_module('addi' + 'tion')",
        "importlib.import_module('addi' + 'tion'); del sys.modules['addition']",
    ],
)
@pytest.mark.parametrize("is_compiled", [False, True], ids=["new", "compiled before"])
def test_a_module_that_python_does_not_keep_is_recorded(is_compiled: bool, code: str, project: Project) -> None:
    file = project.write("addition.py", "x = 1\n")
    source = f"import importlib, runpy, sys\ndef main():\n    {code}\n"
    if is_compiled:
        py_compile.compile(str(file))
    used = project.record(source)
    assert "addition.py" in used["files"]
    assert project.changed(used) == ""
    file.write_text("x = 2\n")
    assert project.changed(used) == "source addition.py"


def test_compiled_code_without_its_source_is_recorded(project: Project) -> None:
    source = project.write("addition.py", "x = 1\n")
    py_compile.compile(str(source), str(source.with_suffix(".pyc")))
    source.unlink()
    used = project.record("import sys, addition\ndel sys.modules['addition']\ndef main(): ...\n")
    assert set(used["files"]) == {"addition.pyc"}


@pytest.mark.parametrize(
    ("code", "changed"),
    [
        ("import addition", ""),
        ("exec(open('addi' + 'tion.py').read())", "source addition.py"),
        ("import addition; open(addition.__file__).close()", "source addition.py"),
    ],
)
def test_a_source_that_is_read_as_data_counts_by_its_bytes(code: str, changed: str, project: Project) -> None:
    file = project.write("addition.py", "x = 1\n")
    used = project.record(f"{code}\ndef main(): ...\n")
    assert project.changed(used) == ""
    file.write_text("x = 1  # a comment\n")
    assert project.changed(used) == changed


def test_code_in_a_linked_folder_is_recorded(project: Project) -> None:
    (project.outside / "deep_code.py").write_text("x = 1\n")
    (project.root / "linked").symlink_to(project.outside)
    used = project.record("import linked.deep_code\ndef main(): ...\n")
    assert project.changed(used) == ""
    (project.outside / "deep_code.py").write_text("x = 2\n")
    assert project.changed(used) == "source linked/deep_code.py"


@pytest.mark.parametrize("code", ["importlib.import_module('optio' + 'nal')", "from layers import optional"])
def test_a_module_that_was_looked_for_and_is_added_later_is_found(code: str, project: Project) -> None:
    project.write("layers/__init__.py")
    used = project.record(f"import importlib\ndef main():\n    try:\n        {code}\n    except ImportError: ...\n")
    assert project.changed(used) == ""
    name = "layers/optional.py" if "layers" in code else "optional.py"
    project.write(name)
    assert project.changed(used) == f"source {name}"


@pytest.mark.parametrize("edited", ["net.py", "optional.py"])
def test_code_that_changes_while_the_step_runs_never_matches(edited: str, project: Project) -> None:
    project.write("net.py", "x = 1\n")
    used = project.record(
        f"{EDIT}\nimport net\ntry:\n    import optional\nexcept ImportError: ...\ndef main():\n"
        f"    edit({edited[:2]!r} + {edited[2:]!r}, 'x=2')\n"
    )
    assert project.changed(used) == f"source {edited}"
    project.write(edited, "x = 1\n")
    assert project.changed(used) == f"source {edited}"


def test_a_module_that_the_step_writes_and_imports_is_recorded_as_it_was_left(project: Project) -> None:
    used = project.record(
        "def main():\n    with open('made' + '.py', 'w') as file:\n        file.write('x = 1')\n    import made\n"
    )
    assert project.changed(used) == ""
    project.write("made.py", "x = 2")
    assert project.changed(used) == "source made.py"


def test_a_module_that_only_a_package_does_not_find_is_not_missing(project: Project) -> None:
    project.write("layers/__init__.py", "__path__ = []\n")
    project.write("layers/dense.py")
    used = project.record("def main():\n    try:\n        import layers.dense\n    except ImportError: ...\n")
    assert project.changed(used) == ""


FINDER = """
import sys
from importlib.util import spec_from_file_location

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return spec_from_file_location(name, OUTSIDE + '/hidden_code.py') if name == 'hidden_code' else None

"""


@pytest.mark.parametrize("code", ["sys.path.insert(0, OUTSIDE)", "sys.meta_path.insert(0, Finder)"])
def test_a_module_is_found_again_without_the_search_path_that_the_users_code_set(code: str, project: Project) -> None:
    file = project.outside / "hidden_code.py"
    file.write_text("x = 1\n")
    used = project.record(f"OUTSIDE = {str(project.outside)!r}\n{FINDER}{code}\nimport hidden_code\ndef main(): ...\n")
    assert project.changed(used) == ""
    file.write_text("x = 2\n")
    assert project.changed(used) == "source ../outside/hidden_code.py"


def test_folders_are_not_recorded_for_being_searched_for_modules(project: Project) -> None:
    project.write("package/__init__.py")
    project.write("package/part.py")
    used = project.record("import package.part\ndef main():\n    import json.tool\n")
    assert (used["files"], used["folders"], used["globs"]) == ({}, {}, {})


def test_installed_libraries_and_our_cache_are_not_recorded(project: Project) -> None:
    project.write("cache/ours.bin")
    project.write("__pycache__/pythons.bin")
    used = project.record(
        "import os\ndef main():\n    import numpy.polynomial, json.tool, deploycheck\n"
        "    try:\n        import numpy.nothing\n    except ImportError: ...\n"
        "    open('cache/ours.bin').close()\n    os.listdir('cache')\n    open('__pycache__/pythons.bin').close()\n"
        "    open(numpy.__file__).close()\n    open('/etc/passwd').close()\n    open('/proc/self/status').close()\n"
    )
    assert {name for name, digest in used["modules"].items() if digest != ABSENT} == {"step_code"}
    assert "numpy.nothing" not in used["modules"]
    assert (used["files"], used["folders"]) == ({}, {})


def test_pythons_modules_for_other_systems_are_not_recorded(project: Project) -> None:
    used = project.record("def main():\n    try:\n        import winreg\n    except ImportError: ...\n")
    assert set(used["modules"]) == {"step_code"}


def install(name: str, version: str, site: Path, module: str = "") -> None:
    """Install a library of one module, as pip does."""
    file = site / (module or f"{name}.py")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("")
    facts = site / f"{name.replace('-', '_')}-1.0.dist-info"
    facts.mkdir(exist_ok=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (facts / "RECORD").write_text(f"{file.relative_to(site).as_posix()},,\n")


@pytest.mark.parametrize(("name", "version", "changed"), [("kept", "1.0", ""), ("upgraded", "2.0", "library upgraded")])
def test_the_version_of_a_library_that_the_step_loaded_is_recorded(
    name: str, version: str, changed: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = project.outside / "site-packages"
    install(name, "1.0", site)
    used = project.record(
        f"import importlib\ndef main():\n    importlib.import_module({name[:2]!r} + {name[2:]!r})\n", site
    )
    assert used["libraries"] == {name: "1.0"}
    install(name, version, site)
    monkeypatch.syspath_prepend(site)  # versions are read once per process: each case has a name of its own
    assert project.changed(used) == changed


def test_a_library_in_a_package_that_has_no_file_is_recorded(project: Project) -> None:
    site = project.outside / "site-packages"
    install("vendor-tools", "1.0", site, module="vendor/tools/__init__.py")
    used = project.record("def main():\n    import vendor.tools\n", site)
    assert used["libraries"] == {"vendor-tools": "1.0"}


def test_a_project_that_is_reached_by_a_link_is_the_same_project(project: Project) -> None:
    project.write("data.csv", "a,b\n")
    linked = Project(project.root.with_name("linked"), project.outside)
    linked.root.symlink_to(project.root)
    used = linked.record("def main():\n    open('data' + '.csv').close()\n")
    assert "step_code" in used["modules"]
    assert linked.changed(used) == project.changed(used) == ""
    project.write("data.csv", "a,c\n")
    assert "data.csv" in linked.changed(used)


def test_a_project_and_its_neighbour_can_be_moved(project: Project, tmp_path: Path) -> None:
    (project.outside / "data.csv").write_text("a,b\n")
    used = project.record("def main():\n    open('../out' + 'side/data.csv').close()\n")
    assert set(used["files"]) == {"../outside/data.csv"}
    moved = Project(tmp_path / "elsewhere" / "project", tmp_path / "elsewhere" / "outside")
    moved.root.parent.mkdir()
    shutil.move(project.root, moved.root)
    shutil.move(project.outside, moved.outside)
    assert moved.changed(used) == ""
    (moved.outside / "data.csv").write_text("a,c\n")
    assert moved.changed(used) == "file ../outside/data.csv"


def test_a_record_of_nothing_never_changes(tmp_path: Path) -> None:
    assert find_changed({}, tmp_path, Digests(tmp_path / "digests.json")) == ""


def test_the_recorder_never_breaks_what_it_records(project: Project) -> None:
    used = project.record(
        "import os\ndef main():\n    os.close(os.open(b'data\\xff', os.O_WRONLY | os.O_CREAT))\n    os.listdir(b'.')\n"
        "    os.unlink(b'data\\xff')\n    os.listdir(os.open('.', os.O_RDONLY))\n"
    )
    assert set(used["folders"]) == {"."}


def test_what_the_system_can_do_with_stat_is_still_said(project: Project) -> None:
    project.record(
        "import os\nfrom pathlib import Path\ndef main():\n    assert os.stat in os.supports_follow_symlinks\n"
        "    assert os.stat(0) and os.stat(b'.') and os.stat('.', follow_symlinks=False) and Path('.').stat()\n"
    )


def test_a_log_that_was_cut_off_is_read_as_far_as_it_goes(project: Project) -> None:
    project.write("data.csv", "a,b\n")
    project.record("def main():\n    open('data.csv').close()\n")
    with project.log.open("a") as log:
        log.write('["opened", "/some')
    assert str(project.root / "data.csv") in read_log(project.log).opened


def test_a_killed_steps_files_are_stale_once_an_input_changed(project: Project) -> None:
    assert not is_stale(project.log)
    project.write("data.csv", "a,b\n")
    os.mkfifo(project.root / "pipe")
    project.record(
        "import os\ndef main():\n    open('data.csv').close()\n    os.listdir('.')\n"
        "    open('/proc/self/status').close()\n    os.close(os.open('pipe', os.O_RDONLY | os.O_NONBLOCK))\n"
        "    open('cache/kept', 'w').close()\n    open('cache/kept').close()\n"
        "    open('result', 'w').close()\n    open('result').close()\n    os.path.exists('optional')\n"
    )
    os.utime(project.root / "pipe", (1, 1))
    project.write("cache/kept", "more")
    project.write("result", "more")
    assert not is_stale(project.log)
    project.write("data.csv", "a,c\n")
    assert is_stale(project.log)
