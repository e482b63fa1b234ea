"""The files and folders that a step used are recorded, and a change in any of them is found."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from deploycheck.runner.digests import ABSENT
from tests.runner.recorded import EDIT, Project

IMPORTS = (
    "import glob, importlib.resources, os, pkgutil, sqlite3, subprocess, sys, tempfile\nfrom pathlib import Path\n"
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.make(tmp_path)


OPENED = {
    "open": ("open('data' + '.bin').close()", "bin"),
    "pathlib": ("Path('data' + '.bin').read_bytes()", "bin"),
    "absolute": ("open(os.path.join(os.getcwd(), 'data' + '.bin')).close()", "bin"),
    "os.open": ("os.close(os.open('data' + '.bin', os.O_RDONLY))", "bin"),
    "at a module's top": ("pass\nexec('x = ' + open('data' + '.bin').read())", "bin"),
    "numpy": ("np.load('data' + '.npy')", "npy"),
    "numpy.memmap": ("np.load('data' + '.npy', mmap_mode='r')", "npy"),
    "sqlite3": ("sqlite3.connect('data' + '.db').execute('select * from t')", "db"),
    "sqlite3 by an address": (
        "sqlite3.connect('file:da%74a' + '.db?mode=ro', uri=True).execute('select * from t')",
        "db",
    ),
    "sqlite3 by an absolute address": (
        "sqlite3.connect(f'file://{os.getcwd()}/data' + '.db?mode=ro', uri=True).execute('select * from t')",
        "db",
    ),
    "native, by a text in the source": ("load_file('data.safetensors')", "safetensors"),
    "a program's argument": ("subprocess.run(['cat', 'data' + '.bin'], check=True)", "bin"),
    "a part of a program's argument": ("subprocess.run(['echo', '--data=data' + '.bin'], check=True)", "bin"),
    "a program's argument in another folder": ("subprocess.run(['cat', 'data' + '.bin'], cwd=os.getcwd())", "bin"),
    "a shell's command": ("subprocess.run('cat data' + '.bin', shell=True, check=True)", "bin"),
    "a command": ("os.system('cat <data' + '.bin')", "bin"),
}


@pytest.mark.parametrize("how", OPENED)
def test_a_file_that_was_opened_is_recorded(how: str, project: Project) -> None:
    code, suffix = OPENED[how]
    file = project.root / f"data.{suffix}"
    match suffix:
        case "npy":
            np.save(file, np.zeros(3))
        case "safetensors":
            save_file({"x": np.zeros(3)}, file)
        case "db":
            with closing(sqlite3.connect(file)) as database:
                database.execute("create table t (x)")
        case _:
            file.write_bytes(b"1")
    libraries = {"npy": "import numpy as np\n", "safetensors": "from safetensors.numpy import load_file\n"}
    used = project.record(f"{IMPORTS}{libraries.get(suffix, '')}def main():\n    {code}\n")
    assert set(used["files"]) == {file.name}
    assert project.changed(used) == ""
    file.write_bytes(file.read_bytes() + b"x")
    assert project.changed(used) == f"file {file.name}"


def test_what_forked_processes_open_is_recorded(project: Project) -> None:
    for name in ("a.csv", "b.csv"):
        project.write(name, name)
    used = project.record(
        "import multiprocessing\ndef read(name):\n    return open(name + '.csv').read()\n"
        "def main():\n    with multiprocessing.get_context('fork').Pool(2) as pool:\n        pool.map(read, 'ab')\n"
    )
    assert set(used["files"]) == {"a.csv", "b.csv"}
    project.write("b.csv", "c")
    assert project.changed(used) == "file b.csv"


def test_a_file_beside_a_source_is_recorded_by_its_text(project: Project) -> None:
    project.write("package/__init__.py", "NAME = 'table.csv'\n")
    project.write("package/table.csv", "a,b\n")
    used = project.record("import package\ndef main(): ...\n")
    assert set(used["files"]) == {"package/table.csv"}


def test_a_file_is_recorded_by_a_text_for_its_folder_and_one_for_its_name(project: Project) -> None:
    (project.root / "weights").mkdir()
    file = project.root / "weights" / "model.safetensors"
    save_file({"x": np.zeros(3)}, file)
    used = project.record(
        "import os\nfrom safetensors.numpy import load_file\nFOLDER = 'weights'\n"
        "def main():\n    load_file(os.path.join(FOLDER, 'model.safetensors'))\n"
    )
    assert set(used["files"]) == {"weights/model.safetensors"}
    save_file({"x": np.ones(3)}, file)
    assert project.changed(used) == "file weights/model.safetensors"


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


@pytest.mark.parametrize(
    "code",
    [
        "os.listdir('images')",
        "list(os.scandir('images'))",
        "list(Path('images').iterdir())",
        "list(os.walk('images'))",
        "(os.chdir('images'), os.listdir(), os.chdir('..'))",
        "list(pkgutil.iter_modules(['images']))",
        "list(importlib.resources.files('images').iterdir())",
    ],
)
def test_a_folder_that_was_listed_is_recorded(code: str, project: Project) -> None:
    project.write("images/a.png", "a")
    project.write("images/__init__.py")
    used = project.record(f"{IMPORTS}def main():\n    {code}\n")
    assert set(used["folders"]) == {"images"}
    project.write("images/a.png", "b")
    assert project.changed(used) == ""  # the names alone count; a file that is read counts by itself
    project.write("images/b.png", "b")
    assert project.changed(used) == "folder images"


@pytest.mark.parametrize(
    ("code", "pattern"),
    [
        ("glob.glob('images/*.png')", "images/*.png"),
        ("list(glob.iglob('images/*.png'))", "images/*.png"),
        ("glob.glob('*.png', root_dir='images')", "images/*.png"),
        ("glob.glob('images/**/*.png', recursive=True)", "images/**/*.png"),
        ("list(Path('images').glob('*.png'))", "images/*.png"),
        ("list(Path('images').rglob('*.png'))", "images/**/*.png"),
    ],
)
def test_a_pattern_is_recorded_by_its_matches_not_by_its_folder(code: str, pattern: str, project: Project) -> None:
    project.write("images/a.png", "a")
    used = project.record(f"{IMPORTS}def main():\n    {code}\n")
    assert set(used["globs"]) == {pattern}
    assert used["folders"] == {}
    project.write("images/notes.txt")
    assert project.changed(used) == ""
    project.write("images/b.png", "b")
    assert project.changed(used) == f"the files {pattern}"


@pytest.mark.parametrize(
    ("code", "part", "name"),
    [
        ("open('settings' + '.json')", "files", "settings.json"),
        ("os.stat('settings' + '.json')", "files", "settings.json"),
        ("os.path.exists('settings' + '.json')", "files", "settings.json"),
        ("Path('settings' + '.json').is_file()", "files", "settings.json"),
        ("Path('image' + 's').is_dir()", "files", "images"),
        ("os.listdir('images' + '')", "folders", "images"),
    ],
)
def test_what_was_looked_for_and_is_added_later_is_found(code: str, part: str, name: str, project: Project) -> None:
    used = project.record(f"{IMPORTS}def main():\n    try:\n        {code}\n    except OSError: ...\n")
    assert used[part] == {name: ABSENT}
    assert project.changed(used) == ""
    (project.root / name).mkdir() if name == "images" else project.write(name)
    assert project.changed(used) == f"{part.removesuffix('s')} {name}"


@pytest.mark.parametrize(
    ("code", "name", "changed"),
    [
        ("open('data' + '.csv').close()", "data.csv", "file data.csv"),
        ("os.path.exists('optional' + '.csv')", "optional.csv", "file optional.csv"),
        ("os.listdir('.')", "added.csv", "folder ."),
        ("glob.glob('*.csv')", "added.csv", "the files *.csv"),
    ],
)
def test_an_input_that_changes_while_the_step_runs_never_matches(
    code: str, name: str, changed: str, project: Project
) -> None:
    project.write("data.csv", "a,b")
    used = project.record(f"{IMPORTS}{EDIT}def main():\n    {code}\n    edit({name!r}, 'c,d')\n")
    assert project.changed(used) == changed


def test_a_file_that_was_made_and_removed_is_not_recorded(project: Project) -> None:
    used = project.record(
        "import os\ndef main():\n    name = 'scratch' + '.tmp'\n    open(name, 'w').close()\n"
        "    open(name).close()\n    os.unlink(name)\n"
    )
    assert used["files"] == {}


@pytest.mark.parametrize(
    "code", ["open(name, 'w').write('a,b')", "open('part', 'w').write('a,b'); os.replace('part', name)"]
)
def test_a_file_that_was_made_and_read_is_recorded_as_it_was_left(code: str, project: Project) -> None:
    used = project.record(
        f"import os\ndef main():\n    name = 'kept' + '.csv'\n    if not os.path.exists(name):\n        {code}\n"
        "    open(name).close()\n"
    )
    assert set(used["files"]) == {"kept.csv"}
    assert project.changed(used) == ""
    project.write("kept.csv", "a,c")
    assert project.changed(used) == "file kept.csv"


@pytest.mark.parametrize(
    "code",
    ["shutil.rmtree('out')", "list(os.fwalk('out'))", "os.stat('missing', dir_fd=os.open('out', os.O_RDONLY))"],
)
def test_a_name_in_an_open_folder_is_not_recorded_as_a_path(code: str, project: Project) -> None:
    used = project.record(
        "import os, shutil\ndef main():\n    os.makedirs('out/inner/deep')\n"
        f"    try:\n        {code}\n    except FileNotFoundError: ...\n"
    )
    assert set(used["files"]) <= {"out", "out/inner"}  # which makedirs looks for


def test_a_folder_that_the_step_made_is_not_an_input(project: Project) -> None:
    used = project.record("import os\ndef main():\n    if not os.path.exists('out'):\n        os.mkdir('out')\n")
    assert used["files"] == {}


@pytest.mark.parametrize("is_there", [False, True])
def test_a_file_that_was_only_written_is_not_an_input(is_there: bool, project: Project) -> None:
    if is_there:
        project.write("log.txt", "line")
    used = project.record("def main():\n    with open('log.txt', 'a') as file:\n        file.write('line')\n")
    assert used["files"] == {}


def test_a_temporary_file_that_is_left_is_not_an_input(project: Project, tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    used = project.record(
        f"{IMPORTS}def main():\n    with tempfile.NamedTemporaryFile('w', delete=False) as file:\n"
        "        file.write('a')\n    open(file.name).close()\n",
        TMPDIR=str(tmp_path / "temporary"),
    )
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    assert used["files"] == {}


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no shared memory that is a folder")
def test_devices_are_not_inputs_but_files_in_shared_memory_are(project: Project) -> None:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        used = project.record(
            f"{IMPORTS}def main():\n    os.path.exists('/dev/none')\n    open('/dev/null').close()\n"
            f"    open({file.name!r}).close()\n"
        )
    assert set(used["files"]) == {file.name}


def test_a_file_that_was_in_the_temporary_folder_is_an_input(project: Project, tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    (tmp_path / "temporary" / "data.csv").write_text("a,b")
    used = project.record(
        f"{IMPORTS}def main():\n    open(tempfile.gettempdir() + '/data' + '.csv').close()\n",
        TMPDIR=str(tmp_path / "temporary"),
    )
    assert set(used["files"]) == {"../temporary/data.csv"}


def test_the_cache_of_what_jax_compiled_is_not_an_input(project: Project) -> None:
    (project.outside / "jit_f-cache").write_text("compiled")
    used = project.record(
        f"import os\nFOLDER = {str(project.outside)!r}\ndef main():\n    for name in os.listdir(FOLDER):\n"
        "        open(os.path.join(FOLDER, name)).close()\n",
        JAX_COMPILATION_CACHE_DIR=str(project.outside),
    )
    assert (used["files"], used["folders"]) == ({}, {})


def test_a_pipe_is_not_read(project: Project) -> None:
    os.mkfifo(project.root / "pipe")
    used = project.record(f"{IMPORTS}def main():\n    os.close(os.open('pipe', os.O_RDONLY | os.O_NONBLOCK))\n")
    assert project.changed(used) == ""
