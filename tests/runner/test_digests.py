"""Digests of files: right whatever happens to a file, and a file that is unchanged isn't read again."""

from __future__ import annotations

import hashlib
import json
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from deploycheck.runner import digests as module
from deploycheck.runner.digests import ABSENT, Digests, is_regular, path_from, state_of, strings_of

SOURCE = '''\
"""What it does."""
import numpy as np
from . import near
from ..above import thing, other

def f(x):
    """Double it."""
    import inner.one
    return 2 * x
'''


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose content was read, in order."""
    found: list[str] = []
    open_file = Path.open

    def counted(path: Path, mode: str = "r", **named: Any) -> IO[Any]:
        if "r" in mode:
            found.append(path.name)
        return open_file(path, mode, **named)

    monkeypatch.setattr(Path, "open", counted)
    return found


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that makes it late enough for every file to be old."""

    def wait() -> None:
        now = time.time_ns() + 3 * module.SETTLED_NS
        monkeypatch.setattr(time, "time_ns", lambda: now)

    return wait


@pytest.fixture
def digests(tmp_path: Path) -> Digests:
    return Digests(tmp_path / "cache" / "digests.json")


def test_an_unchanged_file_is_not_read_again(
    tmp_path: Path, digests: Digests, reads: list[str], later: Callable[[], None]
) -> None:
    file = tmp_path / "data.csv"
    file.write_text("a,b\n")
    later()
    assert digests.file(file) == digests.file(file) == hashlib.sha256(b"a,b\n").hexdigest()
    assert reads == ["data.csv"]


def test_a_file_that_has_just_changed_is_read_each_time(tmp_path: Path, digests: Digests, reads: list[str]) -> None:
    file = tmp_path / "data.csv"
    file.write_text("a,b\n")
    digests.file(file)
    digests.file(file)
    assert reads == ["data.csv"] * 2


def test_a_change_of_the_same_size_with_its_time_set_back_is_noticed(
    tmp_path: Path, digests: Digests, later: Callable[[], None]
) -> None:
    file = tmp_path / "data.csv"
    file.write_text("a,b\n")
    later()
    before, facts = digests.file(file), file.stat()
    file.write_text("a,c\n")
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert file.stat().st_mtime_ns == facts.st_mtime_ns
    assert digests.file(file) == hashlib.sha256(b"a,c\n").hexdigest() != before


def test_a_file_replaced_by_another_is_noticed(tmp_path: Path, digests: Digests, later: Callable[[], None]) -> None:
    file, other = tmp_path / "data.csv", tmp_path / "other.csv"
    file.write_text("a,b\n")
    other.write_text("a,c\n")
    later()
    before = digests.file(file)
    other.replace(file)
    assert digests.file(file) != before


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("def f(x):", "def f(x):  # a comment", True),
        ("import numpy as np\n", "\n\nimport numpy as np\n\n", True),
        ("2 * x", "(2 * x)", True),
        ("Double it", "Treble it", False),
        ("2 * x", "3 * x", False),
        ("import numpy as np", "import numpy as numbers", False),
    ],
)
def test_a_source_counts_by_what_it_says_not_by_its_layout(
    old: str, new: str, same: bool, tmp_path: Path, digests: Digests
) -> None:
    file = tmp_path / "net.py"
    file.write_text(SOURCE)
    before = digests.file(file)
    file.write_text(SOURCE.replace(old, new))
    assert (digests.file(file) == before) is same
    assert digests.tree(file) == digests.file(file)


def test_the_imports_of_a_source_are_found_at_its_top_and_inside_functions(tmp_path: Path, digests: Digests) -> None:
    file = tmp_path / "net.py"
    file.write_text(SOURCE)
    code = digests.code(file)
    assert code is not None
    assert code.imports == (
        (0, "numpy", ()),
        (1, "", ("near",)),
        (2, "above", ("thing", "other")),
        (0, "inner.one", ()),
    )


@pytest.mark.parametrize("content", [b"def f(:\n", b"x = '\x00'\n", b"\xff\xfe"])
def test_a_source_that_cannot_be_parsed_counts_by_its_bytes(content: bytes, tmp_path: Path, digests: Digests) -> None:
    file = tmp_path / "net.py"
    file.write_bytes(content)
    code = digests.code(file)
    assert code is not None
    assert (code.digest, code.imports) == (hashlib.sha256(content).hexdigest(), ())


def test_what_is_missing_is_absent_until_it_is_there(tmp_path: Path, digests: Digests) -> None:
    for name in ("data.csv", "net.py", "data.csv/inside"):
        assert digests.file(tmp_path / name) == ABSENT
    assert digests.code(tmp_path / "net.py") is None
    assert digests.listing(tmp_path / "folder") == ABSENT
    (tmp_path / "data.csv").write_text("")
    assert digests.file(tmp_path / "data.csv") == hashlib.sha256(b"").hexdigest()
    (tmp_path / "data.csv").unlink()
    assert digests.file(tmp_path / "data.csv") == ABSENT


def test_a_listing_is_of_names_and_a_tree_of_contents_too(tmp_path: Path, digests: Digests) -> None:
    folder = tmp_path / "images"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.png").write_bytes(b"a")
    (folder / "inner" / "b.png").write_bytes(b"b")
    listing, tree = digests.listing(folder), digests.tree(folder)
    (folder / "inner" / "b.png").write_bytes(b"c")
    assert digests.listing(folder) == listing
    changed = digests.tree(folder)
    assert changed != tree
    (folder / "a.png").rename(folder / "c.png")
    assert digests.listing(folder) != listing
    assert digests.tree(folder) not in (tree, changed)


def test_what_is_linked_in_a_folder_counts(tmp_path: Path, digests: Digests) -> None:
    folder, shared = tmp_path / "data", tmp_path / "shared"
    folder.mkdir()
    shared.mkdir()
    (shared / "a.csv").write_text("a")
    empty = digests.tree(folder)
    (folder / "linked").symlink_to(shared)
    one = digests.tree(folder)
    (folder / "again").symlink_to(shared)
    two = digests.tree(folder)
    (shared / "circle").symlink_to(folder)
    circle = digests.tree(folder)
    (shared / "a.csv").write_text("b")
    assert len({empty, one, two, circle, digests.tree(folder)}) == 5


def test_a_pattern_counts_by_the_names_that_match(tmp_path: Path, digests: Digests) -> None:
    for name in ("a.csv", "inner/b.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    flat, deep = f"{tmp_path}/*.csv", f"{tmp_path}/**/*.csv"
    before = digests.matches(flat), digests.matches(deep)
    (tmp_path / "a.csv").write_text("a")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "c.csv").write_text("")
    assert (digests.matches(flat), digests.matches(deep)) == before
    (tmp_path / "inner" / "c.csv").write_text("")
    assert digests.matches(flat) == before[0]
    assert digests.matches(deep) != before[1]


def test_a_pipe_is_not_read(tmp_path: Path, digests: Digests) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    assert digests.file(tmp_path / "pipe.py") == digests.content(tmp_path / "pipe.py") == ABSENT
    assert digests.tree(tmp_path) == digests.tree(tmp_path)
    assert [is_regular(tmp_path / name) for name in ("pipe.py", ".", "none")] == [False] * 3


def test_a_large_file_is_read_in_parts(tmp_path: Path, digests: Digests) -> None:
    size = 32 * 2**20
    file = tmp_path / "large.bin"
    with file.open("wb") as whole:
        whole.truncate(size)
    tracemalloc.start()
    try:
        digests.content(file)
        assert tracemalloc.get_traced_memory()[1] < size / 8
    finally:
        tracemalloc.stop()


def test_a_files_state_changes_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    assert state_of(file) is state_of("a\0b") is None
    file.write_text("a")
    before = state_of(file)
    assert state_of(str(file)) == before
    file.write_text("a,b")
    assert state_of(file) != before


@pytest.mark.parametrize(
    ("root", "path", "recorded"),
    [
        ("/home/me/project", "/home/me/project/data/a.csv", "data/a.csv"),
        ("/home/me/project", "/home/me/shared/a.csv", "../shared/a.csv"),
        ("/home/me/project", "/mnt/a.csv", "/mnt/a.csv"),
        ("/home/project", "/home/shared/a.csv", "../shared/a.csv"),
        ("/project", "/project/a.csv", "a.csv"),
        ("/project", "/shared/a.csv", "/shared/a.csv"),
    ],
)
def test_a_path_near_the_project_is_recorded_relative_to_it(root: str, path: str, recorded: str) -> None:
    assert path_from(Path(root), path) == recorded


def test_a_later_run_does_not_read_what_this_one_has_read(
    tmp_path: Path, digests: Digests, reads: list[str], later: Callable[[], None]
) -> None:
    data, source = tmp_path / "data.csv", tmp_path / "net.py"
    data.write_text("a,b\n")
    source.write_text(SOURCE)
    later()
    first = (digests.file(data), digests.code(source))
    digests.save()
    reads.clear()
    found = Digests(digests.memo)
    assert (found.file(data), found.code(source)) == first
    assert reads == ["digests.json"]


def test_saving_keeps_what_another_process_saved_meanwhile(
    tmp_path: Path, digests: Digests, reads: list[str], later: Callable[[], None]
) -> None:
    ours, theirs = tmp_path / "ours.csv", tmp_path / "theirs.csv"
    ours.write_text("a")
    theirs.write_text("b")
    later()
    other = Digests(digests.memo)
    digests.file(ours)
    other.file(theirs)
    other.save()
    digests.save()
    reads.clear()
    found = Digests(digests.memo)
    assert (found.file(ours), found.file(theirs)) == (digests.file(ours), other.file(theirs))
    assert reads == ["digests.json"]


def test_saving_where_nothing_was_learned_writes_nothing(
    tmp_path: Path, digests: Digests, later: Callable[[], None]
) -> None:
    digests.save()
    assert not digests.memo.exists()
    (tmp_path / "data.csv").write_text("a,b\n")
    later()
    digests.file(tmp_path / "data.csv")
    digests.save()
    assert [path.name for path in digests.memo.parent.iterdir()] == ["digests.json"]
    inode = digests.memo.stat().st_ino
    digests.file(tmp_path / "data.csv")
    digests.save()
    assert digests.memo.stat().st_ino == inode


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "\x00\xff", "{}", '{"FILE": {"settled": true}}', '{"format": FORMAT, "files": []}'],
)
def test_a_damaged_memo_is_ignored(content: str, tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(SOURCE)
    memo = tmp_path / "digests.json"
    written = content.replace("FILE", str(file)).replace("FORMAT", json.dumps(module.FORMAT))
    memo.write_text(written, encoding="latin-1")
    assert Digests(memo).code(file) == Digests(tmp_path / "none.json").code(file)


def test_a_memo_of_another_python_is_ignored(
    tmp_path: Path, digests: Digests, reads: list[str], later: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "net.py"
    file.write_text(SOURCE)
    later()
    digests.file(file)
    digests.save()
    monkeypatch.setattr(module, "FORMAT", "1, Python 4.0")
    reads.clear()
    Digests(digests.memo).file(file)
    assert reads == ["digests.json", "net.py"]


def test_a_name_that_is_not_text_is_a_name_too(tmp_path: Path, digests: Digests) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    listing, tree = digests.listing(folder), digests.tree(folder)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")).write_bytes(b"a")
    assert digests.listing(folder) != listing
    assert digests.tree(folder) != tree


def test_texts_that_could_name_a_file_are_found_in_a_source(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(f"X = 'data.csv'\ndef f(path='more.csv'):\n    return f'{{path}}', '', 'a\\nb', 3, {'x' * 256!r}\n")
    assert strings_of(file) == {"data.csv", "more.csv"}
    file.write_text("def f(:")
    assert strings_of(file) == strings_of(tmp_path / "none.py") == frozenset()
