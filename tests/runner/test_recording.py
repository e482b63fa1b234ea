"""What a step's code used is recorded, and a change in any of it is found.

Each test records in a process of its own: an audit hook stays until its process ends.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from deploycheck.runner.digests import ABSENT, Digests
from deploycheck.runner.recording import Used, find_changed

CHILD = """
import importlib, json, os, sys
from pathlib import Path
from deploycheck.runner.digests import Digests
from deploycheck.runner.recording import Recorder

root, *path = sys.argv[1:]
sys.path[:0] = [root, *path]
os.chdir(root)
cache = Path(root) / "cache"
recorder = Recorder(Path(root), (cache,), Digests(cache / "digests.json"))
records = []
for _ in range(2):
    with recorder.recording() as used:
        importlib.import_module("step_code").main()
        records.append(used())
assert records[0] == records[1], records
print(json.dumps(records[0]))
"""


@dataclass(frozen=True)
class Project:
    """A user's project, with a folder outside of it."""

    root: Path
    outside: Path

    def record(self, source: str, *path: Path) -> Used:
        """Return what is recorded of ``main`` in a source; it is run twice, and must use the same each time."""
        (self.root / "step_code.py").write_text(source)
        command = [sys.executable, "-c", CHILD, str(self.root), *map(str, path)]
        child = subprocess.run(command, capture_output=True, text=True, check=False)
        assert child.returncode == 0, child.stderr
        used: Used = json.loads(child.stdout.splitlines()[-1])
        return used

    def changed(self, used: Used) -> str:
        return find_changed(used, self.root, Digests(self.root / "none.json"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "project", tmp_path / "outside")
    made.root.mkdir()
    made.outside.mkdir()
    return made


def test_a_module_imported_by_a_name_that_no_source_has_is_recorded(project: Project) -> None:
    (project.root / "layers").mkdir()
    (project.root / "layers" / "__init__.py").write_text("")
    (project.root / "layers" / "dense.py").write_text("x = 1\n")
    used = project.record("import importlib\ndef main():\n    importlib.import_module('layers.' + 'esned'[::-1])\n")
    assert set(used["modules"]) == {"step_code", "layers", "layers.dense"}
    assert project.changed(used) == ""
    (project.root / "layers" / "dense.py").write_text("x = 2\n")
    assert project.changed(used) == "source layers/dense.py"


def test_a_module_outside_of_the_project_is_recorded(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    file = project.outside / "outside_code.py"
    file.write_text("x = 1\n")
    used = project.record("import outside_code\ndef main(): ...\n", project.outside)
    assert "outside_code" in used["modules"]
    monkeypatch.syspath_prepend(project.outside)
    assert project.changed(used) == ""
    file.write_text("x = 2\n")
    assert project.changed(used) == f"source {file}"


def test_a_module_that_nothing_finds_any_more_has_changed(project: Project) -> None:
    (project.root / "layers.py").write_text("x = 1\n")
    used = project.record("import layers\ndef main(): ...\n")
    (project.root / "layers.py").unlink()
    assert project.changed(used) == "source layers"


def test_a_module_loaded_from_its_file_is_recorded_by_its_file(project: Project) -> None:
    file = project.outside / "plugin.py"
    file.write_text("x = 1\n")
    used = project.record(
        "import sys\nfrom importlib.util import module_from_spec, spec_from_file_location\n"
        "def main():\n"
        f"    spec = spec_from_file_location('another_name', {str(project.outside)!r} + '/plug' + 'in.py')\n"
        "    module = sys.modules['another_name'] = module_from_spec(spec)\n"
        "    spec.loader.exec_module(module)\n"
    )
    assert str(file) in used["files"]
    file.write_text("x = 2\n")
    assert project.changed(used) == f"source {file}"


OPENED = {
    "open": "open('data' + '.bin').close()",
    "pathlib": "Path('data' + '.bin').read_bytes()",
    "absolute": "open(os.path.join(os.getcwd(), 'data' + '.bin')).close()",
    "os.open": "os.close(os.open('data' + '.bin', os.O_RDONLY))",
    "numpy": "np.load('data' + '.npy')",
    "numpy.memmap": "np.load('data' + '.npy', mmap_mode='r')",
    "sqlite3": "sqlite3.connect('data' + '.db').execute('select * from t')",
    "native, by a text in the source": "load_file('data.safetensors')",
}


@pytest.mark.parametrize("how", OPENED)
def test_a_file_that_was_opened_is_recorded(how: str, project: Project) -> None:
    code = OPENED[how]
    names = {"numpy": "npy", "sqlite3": "db", "native": "safetensors"}
    name = f"data.{names.get(how.partition(',')[0].partition('.')[0], 'bin')}"
    np.save(project.root / "data.npy", np.zeros(3))
    save_file({"x": np.zeros(3)}, project.root / "data.safetensors")
    (project.root / "data.bin").write_bytes(b"one")
    make = "import sqlite3; c = sqlite3.connect('data.db'); c.execute('create table t (x)'); c.commit(); c.close()"
    subprocess.run([sys.executable, "-c", make], cwd=project.root, check=True)
    imports = (
        "import os, sqlite3\nfrom pathlib import Path\nimport numpy as np\nfrom safetensors.numpy import load_file\n"
    )
    used = project.record(f"{imports}def main():\n    {code}\n")
    assert set(used["files"]) == {name}
    assert project.changed(used) == ""
    (project.root / name).write_bytes((project.root / name).read_bytes() + b"x")
    assert project.changed(used) == f"file {name}"


def test_a_file_beside_a_source_is_recorded_by_its_text(project: Project) -> None:
    (project.root / "package").mkdir()
    (project.root / "package" / "__init__.py").write_text("NAME = 'table.csv'\n")
    (project.root / "package" / "table.csv").write_text("a,b\n")
    used = project.record("import package\ndef main(): ...\n")
    assert set(used["files"]) == {"package/table.csv"}


def test_a_file_in_a_linked_folder_is_recorded_and_followed(project: Project) -> None:
    (project.outside / "data.csv").write_text("a,b\n")
    (project.root / "linked").symlink_to(project.outside)
    used = project.record("def main():\n    open('linked/' + 'data.csv').close()\n")
    assert set(used["files"]) == {"linked/data.csv"}
    (project.outside / "data.csv").write_text("a,c\n")
    assert project.changed(used) == "file linked/data.csv"
    (project.outside / "data.csv").write_text("a,b\n")
    assert project.changed(used) == ""
    (project.root / "linked").unlink()
    assert project.changed(used) == "file linked/data.csv"


def test_code_in_a_linked_folder_is_recorded(project: Project) -> None:
    (project.outside / "deep_code.py").write_text("x = 1\n")
    (project.root / "linked").symlink_to(project.outside)
    used = project.record("import linked.deep_code\ndef main(): ...\n")
    assert project.changed(used) == ""
    (project.outside / "deep_code.py").write_text("x = 2\n")
    assert project.changed(used) == "source linked/deep_code.py"


def test_a_project_that_is_reached_by_a_link_is_the_same_project(project: Project) -> None:
    (project.root / "data.csv").write_text("a,b\n")
    linked = Project(project.root.with_name("linked"), project.outside)
    linked.root.symlink_to(project.root)
    used = linked.record("def main():\n    open('data' + '.csv').close()\n")
    assert "step_code" in used["modules"]
    assert linked.changed(used) == project.changed(used) == ""
    (project.root / "data.csv").write_text("a,c\n")
    assert "data.csv" in linked.changed(used)


@pytest.mark.parametrize(
    "code",
    [
        "os.listdir('images')",
        "list(os.scandir('images'))",
        "glob.glob('images/*.png')",
        "list(Path('images').glob('*.png'))",
        "list(Path('images').iterdir())",
        "list(os.walk('images'))",
        "(os.chdir('images'), os.listdir(), os.chdir('..'))",
    ],
)
def test_a_folder_that_was_listed_is_recorded(code: str, project: Project) -> None:
    (project.root / "images").mkdir()
    (project.root / "images" / "a.png").write_bytes(b"a")
    used = project.record(f"import glob, os\nfrom pathlib import Path\ndef main():\n    {code}\n")
    assert set(used["folders"]) == {"images"}
    (project.root / "images" / "a.png").write_bytes(b"b")
    assert project.changed(used) == ""  # the names alone count; a file that is read counts by itself
    (project.root / "images" / "b.png").write_bytes(b"b")
    assert project.changed(used) == "folder images"


def test_folders_are_not_recorded_for_being_searched_for_modules(project: Project) -> None:
    (project.root / "package").mkdir()
    (project.root / "package" / "__init__.py").write_text("")
    (project.root / "package" / "part.py").write_text("")
    used = project.record("import package.part\ndef main():\n    import json.tool\n")
    assert (used["files"], used["folders"]) == ({}, {})


def test_a_file_that_was_made_and_removed_is_not_recorded(project: Project) -> None:
    used = project.record(
        "import os\ndef main():\n    name = 'scratch' + '.tmp'\n    open(name, 'w').close()\n"
        "    open(name).close()\n    os.unlink(name)\n"
    )
    assert used["files"] == {}


def test_a_file_that_was_made_and_read_is_recorded_as_it_was_left(project: Project) -> None:
    used = project.record(
        "def main():\n    name = 'kept' + '.csv'\n    with open(name, 'w') as file:\n        file.write('a,b')\n"
        "    open(name).close()\n"
    )
    assert set(used["files"]) == {"kept.csv"}
    assert project.changed(used) == ""
    (project.root / "kept.csv").write_text("a,c")
    assert project.changed(used) == "file kept.csv"


def test_a_file_that_was_only_written_is_no_input(project: Project) -> None:
    used = project.record("def main():\n    with open('log' + '.txt', 'a') as file:\n        file.write('line')\n")
    assert used["files"] == {}


@pytest.mark.parametrize(
    ("code", "part", "name"),
    [
        ("open('settings' + '.json')", "files", "settings.json"),
        ("os.listdir('images' + '')", "folders", "images"),
    ],
)
def test_what_was_looked_for_and_is_missing_is_recorded_as_absent(
    code: str, part: str, name: str, project: Project
) -> None:
    source = f"import os\ndef main():\n    try:\n        {code}\n    except OSError:\n        pass\n"
    used = project.record(source)
    assert used[part] == {name: ABSENT}
    assert project.changed(used) == ""
    (project.root / name).write_text("{}") if part == "files" else (project.root / name).mkdir()
    assert project.changed(used) == f"{part.removesuffix('s')} {name}"


def test_installed_libraries_and_our_cache_are_not_recorded(project: Project) -> None:
    (project.root / "cache").mkdir()
    (project.root / "cache" / "ours.bin").write_bytes(b"")
    used = project.record(
        "import os\ndef main():\n    import numpy.polynomial, json.tool, deploycheck\n"
        "    open('cache/ours.bin').close()\n    os.listdir('cache')\n"
        "    open(numpy.__file__).close()\n    open('/etc/passwd').close()\n    open('/proc/self/status').close()\n"
    )
    assert set(used["modules"]) == {"step_code"}
    assert (used["files"], used["folders"]) == ({}, {})


def test_each_step_imports_the_users_code_again(project: Project) -> None:
    (project.root / "counted.py").write_text(
        "import builtins\nbuiltins.imports = getattr(builtins, 'imports', 0) + 1\n"
    )
    source = "import builtins, counted\ndef main():\n    open(f'seen{builtins.imports}', 'w').close()\n"
    project.record(source)
    assert sorted(path.name for path in project.root.glob("seen*")) == ["seen1", "seen2"]


def test_the_recorder_never_breaks_what_it_records(project: Project) -> None:
    used = project.record(
        "import os\ndef main():\n    os.close(os.open(b'data\\xff', os.O_WRONLY | os.O_CREAT))\n    os.listdir(b'.')\n"
        "    os.unlink(b'data\\xff')\n    os.listdir(os.open('.', os.O_RDONLY))\n"
    )
    assert set(used["folders"]) == {"."}


def test_a_record_of_nothing_never_changes(tmp_path: Path) -> None:
    assert find_changed({}, tmp_path, Digests(tmp_path / "digests.json")) == ""
