"""Digests of files, kept as long as the file system says that a file is unchanged.

A file whose size, times and inode are unchanged is not read again, so that checking what a step used takes
milliseconds however large its data are. ``ctime`` is among them: a program that sets a file's ``mtime`` back can't
set that. A file that changed less than two seconds before it was digested is always read again, because the times
that file systems keep are not exact.
"""

from __future__ import annotations

import ast
import glob
import hashlib
import json
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from deploycheck.store.disk import write_whole

ABSENT = "absent"
"""The digest of a file that isn't there."""
SETTLED_NS = 2_000_000_000
FORMAT = f"1, Python {sys.version_info.major}.{sys.version_info.minor}"
"""What saved digests must say to be used: versions of Python write the syntax tree of a source differently."""

Import = tuple[int, str, tuple[str, ...]]
"""An import statement: how many packages up it starts, the module, and the names taken from it."""


@dataclass(frozen=True)
class Code:
    """A Python source: a digest of its syntax tree, and what it imports, at its top or inside its functions."""

    digest: str
    imports: tuple[Import, ...]


State = tuple[int, int, int, int] | None
"""A file's size, mtime and ctime in nanoseconds, and inode; None where there is no file."""


def state_of(path: str | Path) -> State:
    """Return what the file system says of a file, by which a change is noticed without reading it."""
    try:
        facts = _stat(path)
    except (OSError, ValueError):
        return None
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino


def is_regular(path: str | Path) -> bool:
    """Whether a path is a regular file: not a folder, a device or a pipe, and not absent."""
    try:
        return stat.S_ISREG(_stat(path).st_mode)
    except (OSError, ValueError):
        return False


_stat = os.stat  # as it is before the recorder watches it


def from_root(path: Path, root: Path) -> str:
    """Return a path as messages have it: relative to the root if it is inside."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def path_from(root: Path, path: str) -> str:
    """Return a path as records have it: relative to the root if it is near, so that both can be moved.

    A neighbour of the project is ``../shared/x``; what is further away than that is absolute.
    """
    top = Path(root.anchor)
    near = next((folder for folder in (root.parent.parent, root.parent, root) if folder != top), top)
    if near == top or not Path(path).is_relative_to(near):
        return path
    return Path(os.path.relpath(path, root)).as_posix()


class Digests:
    """Digests of files and folders. What it knows is saved in the file ``memo``, for later runs."""

    def __init__(self, memo: Path) -> None:
        self.memo = memo
        self._known: dict[str, dict[str, Any]] = _load(memo)
        self._changed = False

    def file(self, path: Path) -> str:
        """Return the digest of a file, or ``ABSENT``; a Python source counts by its syntax tree."""
        if path.suffix == ".py":
            code = self.code(path)
            return code.digest if code else ABSENT
        return self.content(path)

    def content(self, path: Path) -> str:
        """Return the sha256 of a file's bytes, or ``ABSENT``."""
        found = self._entry(path, "sha256", lambda file: hashlib.file_digest(file, "sha256").hexdigest())
        return ABSENT if found is None else str(found)

    def code(self, path: Path) -> Code | None:
        """Return a Python source's digest and imports, or None where there is no such file.

        Comments and layout change nothing. A file that can't be parsed counts by its bytes.
        """
        found = self._entry(path, "code", _read_code)
        if found is None:
            return None
        return Code(found["digest"], tuple((level, name, tuple(names)) for level, name, names in found["imports"]))

    def listing(self, folder: Path) -> str:
        """Return a digest of the names in a folder, or ``ABSENT``; hidden files and Python's own caches don't count."""
        try:
            names = sorted(path.name for path in folder.iterdir())
        except OSError:
            return ABSENT
        return _of_names(name for name in names if not name.startswith(".") and name != "__pycache__")

    def matches(self, pattern: str) -> str:
        """Return a digest of the paths that match a pattern of ``glob``; Python's own caches don't count."""
        folder = os.path.dirname(pattern)  # noqa: PTH120 - a pattern is not a path
        names = (os.path.relpath(path, folder) for path in sorted(glob.glob(pattern, recursive=True)))  # noqa: PTH207
        return _of_names(name for name in names if "__pycache__" not in Path(name).parts)

    def tree(self, path: Path) -> str:
        """Return the digest of a file, or of the names and contents of all files in a folder; links are followed."""
        if not path.is_dir():
            return self.file(path)
        seen: dict[str, str] = {}
        lines = []
        for folder, folders, names in os.walk(path, followlinks=True):
            folders.sort()
            name = Path(folder).relative_to(path).as_posix()
            first = seen.setdefault(os.path.realpath(folder), name)
            if first != name:  # a second link to the same folder, or a circle of links
                folders.clear()
                lines.append(f"{first} {name}")
                continue
            files = [Path(folder, name) for name in names]
            lines += [f"{self.file(file)} {file.relative_to(path).as_posix()}" for file in files if file.is_file()]
        return _of_names(sorted(lines))

    def save(self) -> None:
        """Save what is known for later runs, beside what other processes saved meanwhile."""
        if not self._changed:
            return
        write_whole(self.memo, json.dumps({"format": FORMAT, "files": _load(self.memo) | self._known}))
        self._changed = False

    def _entry(self, path: Path, kind: str, read: Callable[[BufferedReader], Any]) -> Any:
        """Return what ``read`` makes of a file, from memory if the file is unchanged; None if there is no such file."""
        try:
            facts = _stat(path)
            if not stat.S_ISREG(facts.st_mode):  # a pipe would never end
                return None
            state = [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]
            known = self._known.get(str(path))
            if known and known["state"] == state and kind in known and known["settled"]:
                return known[kind]
            now = time.time_ns()
            with path.open("rb") as file:
                content = read(file)
        except (OSError, ValueError):
            return None
        entry = known if known and known["state"] == state and known["settled"] else {"state": state}
        entry |= {kind: content, "settled": max(facts.st_mtime_ns, facts.st_ctime_ns) < now - SETTLED_NS}
        self._known[str(path)] = entry
        self._changed = True
        return entry[kind]


def _of_names(names: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()


def _load(memo: Path) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads(memo.read_bytes())
    except (OSError, ValueError):
        return {}
    match found:
        case {"format": str(written), "files": dict(files)} if written == FORMAT:
            return files
    return {}


def _read_code(file: BufferedReader) -> dict[str, Any]:
    content = file.read()
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {"digest": hashlib.sha256(content).hexdigest(), "imports": []}
    digest = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
    return {"digest": digest, "imports": list(_imports(tree))}


def _imports(node: ast.AST) -> Iterator[Import]:
    """Yield what a source imports when it runs; what only type checkers import doesn't count."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import(names=names):
                yield from ((0, alias.name, ()) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                yield level, module or "", tuple(alias.name for alias in names)
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=orelse):
                yield from (found for statement in orelse for found in _imports(ast.Module([statement], [])))
            case _:
                yield from _imports(child)


def strings_of(path: Path) -> frozenset[str]:
    """Return the text constants of a Python source that could name a file; none where it can't be parsed."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset()
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return frozenset(text for text in constants if isinstance(text, str) and 0 < len(text) < 256 and text.isprintable())
