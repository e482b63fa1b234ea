"""What a step's user code used while it ran: the modules it imported and the files it opened, each with its digest.

An audit hook (PEP 578) sees what Python opens and lists, ``sys.modules`` what it imported. It can't see which files
compiled code opens (pyarrow, safetensors), so the texts in the user's sources that name a file count as used too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from deploycheck.language.names import source_file
from deploycheck.runner.code import is_installed
from deploycheck.runner.digests import ABSENT, Digests, from_root, strings_of

SYSTEM = tuple(
    Path(folder)
    for folder in ("/proc", "/sys", "/dev", "/etc", "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share", "/System")
)
IMPORTING = ("<frozen importlib", "<frozen zipimport", "/importlib/", "/pkgutil.py", "/linecache.py", "/inspect.py")
"""Parts of the names of source files that read and list folders to find modules, not data."""
FRAMES = 6

Used = dict[str, dict[str, str]]
"""``modules`` by name, ``files`` and ``folders`` by path, each to its digest; see ``find_changed``."""


@dataclass
class _Seen:
    """Paths in the order they were first seen."""

    opened: dict[str, None] = field(default_factory=dict)
    written: dict[str, None] = field(default_factory=dict)
    listed: dict[str, None] = field(default_factory=dict)


class Recorder:
    """Records what this process uses, between the start and the end of each step.

    ``ignored`` are folders of our own: the cache. An audit hook can't be removed, so a process has one recorder.
    """

    def __init__(self, root: Path, ignored: tuple[Path, ...], digests: Digests) -> None:
        self.root = root
        self.ignored = tuple(Path(os.path.realpath(folder)) for folder in ignored)
        self.digests = digests
        self._seen: _Seen | None = None
        sys.addaudithook(self._hook)

    @contextmanager
    def recording(self) -> Iterator[Callable[[], Used]]:
        """Forget the user's modules, so that their imports are seen; yield a function that returns the record."""
        forget_users_modules()
        self._seen = seen = _Seen()

        def end() -> Used:
            self._seen = None  # the record reads files too, which the user's code did not
            return self._used(seen)

        try:
            yield end
        finally:
            self._seen = None

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        seen = self._seen
        if seen is None or event not in ("open", "os.listdir", "os.scandir", "sqlite3.connect"):
            return
        with suppress(Exception):  # the recorder must never break the user's code
            self._note(seen, event, arguments)

    def _note(self, seen: _Seen, event: str, arguments: tuple[Any, ...]) -> None:
        path = os.getcwd() if arguments[0] is None else arguments[0]  # noqa: PTH109 - compared as text
        if isinstance(path, int):
            return
        name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - links are followed later
        if event in ("os.listdir", "os.scandir"):
            if not _is_importing():
                seen.listed.setdefault(name)
            return
        flags = arguments[2] if event == "open" else os.O_RDWR
        if flags & (os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
            seen.written.setdefault(name)
        if not flags & os.O_WRONLY and not name.endswith(".pyc") and not (name.endswith(".py") and _is_importing()):
            seen.opened.setdefault(name)

    def _used(self, seen: _Seen) -> Used:
        modules, files = self._modules()
        folders = {name: self.digests.listing(Path(name)) for name in seen.listed if self._counts(Path(name))}
        for name in (*seen.opened, *self._named_in(modules)):
            path = Path(name)
            if not self._counts(path) or path.is_dir():
                continue
            digest = self.digests.file(path)
            if digest != ABSENT or name not in seen.written:  # a file that it made and removed is not an input
                files[name] = digest
        return {
            "modules": {name: digest for name, (digest, _) in sorted(modules.items())},
            "files": {from_root(Path(name), self.root): digest for name, digest in sorted(files.items())},
            "folders": {from_root(Path(name), self.root): digest for name, digest in sorted(folders.items())},
        }

    def _modules(self) -> tuple[dict[str, tuple[str, Path]], dict[str, str]]:
        """Return the user's modules that are loaded: by name where that finds them, else by their files."""
        named: dict[str, tuple[str, Path]] = {}
        files: dict[str, str] = {}
        for name, module in list(sys.modules.items()):
            file = _file_of(module)
            if file is None or not self._counts(file):
                continue
            if source_file(name, self.root) == file:
                named[name] = (self.digests.file(file), file)
            else:
                files[str(file)] = self.digests.file(file)
        return named, files

    def _named_in(self, modules: Mapping[str, tuple[str, Path]]) -> Iterator[str]:
        """Yield files that texts in the user's sources name: from this folder, the root, or the source's own folder."""
        for _, file in modules.values():
            if file.suffix != ".py":
                continue
            for text in strings_of(file):
                for folder in (Path.cwd(), self.root, file.parent):
                    with suppress(OSError, ValueError):
                        if (folder / text).is_file():
                            yield os.path.abspath(folder / text)  # noqa: PTH100 - links are followed later

    def _counts(self, path: Path) -> bool:
        """Whether a path is the user's: not ours, not the system's, not an installed library's."""
        real = Path(os.path.realpath(path))
        if any(real.is_relative_to(folder) for folder in (*self.ignored, *SYSTEM)):
            return False
        return "__pycache__" not in real.parts and not is_installed(real)


def find_changed(used: Mapping[str, Mapping[str, str]], root: Path, digests: Digests) -> str:
    """Return the first thing that differs from a record, in words: ``source net.py``; empty where nothing does."""
    for name, digest in used.get("modules", {}).items():
        file = source_file(name, root)
        if file is None or digests.file(file) != digest:
            return f"source {from_root(file, root) if file else name}"
    for name, digest in used.get("files", {}).items():
        if digests.file(root / name) != digest:
            return f"{'source' if name.endswith('.py') else 'file'} {name}"
    for name, digest in used.get("folders", {}).items():
        if digests.listing(root / name) != digest:
            return f"folder {name}"
    return ""


def forget_users_modules() -> None:
    """Remove the user's modules from memory, so that each step imports them again: what they set up is for one step.

    Compiled extension modules stay: not all of them can be loaded twice.
    """
    for name, module in list(sys.modules.items()):
        file = _file_of(module)
        is_code = file is not None and file.suffix == ".py" and not is_installed(file)
        if name != "__main__" and (is_code or _is_namespace_of_user(module)):
            del sys.modules[name]


def _is_namespace_of_user(module: ModuleType) -> bool:
    if getattr(module, "__file__", None) is not None or not hasattr(module, "__path__"):
        return False
    return not any(is_installed(Path(folder)) for folder in module.__path__)


def _file_of(module: ModuleType) -> Path | None:
    """Return the file that a module is from; None for built-in and namespace modules, and for what isn't a module."""
    file = getattr(module, "__file__", None)
    return Path(file) if isinstance(file, str) else None


def _is_importing() -> bool:
    """Whether the call that is being audited looks for a module."""
    frame: FrameType | None = sys._getframe(3)
    for _ in range(FRAMES):
        if frame is None:
            break
        if any(part in frame.f_code.co_filename for part in IMPORTING):
            return True
        frame = frame.f_back
    return False
