"""What a step's user code used while it ran: the modules it imported and the files it opened, each with its digest.

An audit hook (PEP 578) sees what Python opens and lists, a finder which imports fail, and ``sys.modules`` what was
imported. Each is written to a log as it happens, with the file's size, times and inode: so child processes that are
forked count too, and a file that changes while the step runs is noticed. Which files compiled code opens (pyarrow,
safetensors) can't be seen, so the texts in the user's sources that name a file count as used.
"""

from __future__ import annotations

import glob
import importlib.util
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

from deploycheck.language.names import source_file
from deploycheck.runner.code import is_installed, versions, versions_of_module
from deploycheck.runner.digests import ABSENT, Digests, State, is_regular, path_from, state_of, strings_of

SYSTEM = (
    *map(Path, ("/proc", "/sys", "/dev", "/etc", "/System")),
    *map(Path, ("/bin", "/lib", "/lib64", "/usr/bin", "/usr/lib", "/usr/lib64")),
)
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - users keep data there
READS_SOURCES = ("<frozen importlib", "<frozen zipimport", "<frozen runpy", "/linecache.py", "/tokenize.py")
"""Parts of the names of source files that open Python's sources as sources."""
LISTS_MODULES = ("<frozen importlib", "<frozen zipimport", "/importlib/metadata/", "/glob.py")
"""Parts of the names of source files whose listings of folders are not the user's, or recorded in another way."""
WALKS_TREES = ("/shutil.py", "/os.py", "<frozen os>")
"""Parts of the names of source files whose ``os.open`` names a path relative to an open folder (``dir_fd``)."""
WORDS = re.compile(r"[^\s\"'=<>|&;()]+")
"""The parts of a command line, or of one of its arguments, that may name a file."""
UNSTABLE = "changed while the step ran"
"""In place of a digest: the result can't be used again."""

Used = dict[str, dict[str, str]]
"""``modules`` by name, ``files`` and ``folders`` by path, ``globs`` by pattern, each to its digest; ``libraries`` by
distribution, each to its version. See ``find_changed``."""


@dataclass
class _Seen:
    """What the log says: each path with its state when it was first used in a way, None if it was absent.

    Folders that were listed and patterns have the digest of that time. ``first`` has a file's state when it was first
    used in any way.
    """

    opened: dict[str, State] = field(default_factory=dict)
    sources: dict[str, State] = field(default_factory=dict)
    asked: dict[str, State] = field(default_factory=dict)
    written: dict[str, State] = field(default_factory=dict)
    listed: dict[str, str] = field(default_factory=dict)
    globs: dict[str, str] = field(default_factory=dict)
    missing: dict[str, State] = field(default_factory=dict)
    first: dict[str, State] = field(default_factory=dict)


class Recorder:
    """Records what this process and its forks use, from ``start`` to ``used``.

    ``ignored`` are folders of our own: the cache. Neither an audit hook nor a patched ``os.stat`` is removed again: a
    process that records does one step.
    """

    def __init__(self, root: Path, ignored: Sequence[Path], digests: Digests) -> None:
        self.root = root
        compiled = os.environ.get("JAX_COMPILATION_CACHE_DIR")
        folders = (*ignored, Path(compiled)) if compiled else ignored
        self.ignored = tuple(Path(os.path.realpath(folder)) for folder in folders)
        self.digests = digests
        self._known: set[tuple[str, str]] = set()
        self._log = -1
        self._loaded: frozenset[str] = frozenset()
        self._path: list[str] = []
        self._finders: list[Any] = []

    def start(self, log: Path) -> None:
        """Begin to record, in a file that the forks of this process append to."""
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._loaded = frozenset(name.partition(".")[0] for name in sys.modules)
        self._path, self._finders = list(sys.path), list(sys.meta_path)
        sys.meta_path.append(_Missing(self))
        _watch_stat(self)
        sys.addaudithook(self._hook)

    def note(self, kind: str, name: str) -> None:
        """Write down that a path, a pattern (``globs``) or a module (``missing``) was used, the first time it is."""
        if self._log < 0 or (kind, name) in self._known:
            return
        self._known.add((kind, name))
        state: State | str = None
        match kind:
            case "missing":
                counts = source_file(name, self.root) is None  # else a package has its own search path
            case "globs":
                counts = self._counts(glob_root(name))
                state = self.digests.matches(name) if counts else None
            case "listed":
                counts = self._counts(name)
                state = self.digests.listing(Path(name)) if counts else None
            case _:
                state = state_of(name)
                counts = self._counts(name) and (state is None or is_regular(name))
        if not counts:
            return
        os.write(self._log, f"{json.dumps([kind, name, state])}\n".encode(errors="surrogateescape"))

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._log < 0 or event not in _EVENTS:
            return
        with suppress(Exception):  # the recorder must never break the user's code
            _EVENTS[event](self, arguments, sys._getframe(1))

    def used(self, log: Path) -> Used:
        """End recording and return the record."""
        os.close(self._log)
        self._log = -1  # the record reads files too, which the user's code did not
        sys.path[:], sys.meta_path[:] = self._path, self._finders  # the next run looks names up by these
        seen = read_log(log)
        modules, files = self._modules(seen)
        for path in (*seen.opened, *seen.asked, *filter(self._counts, self._named_in(modules))):
            if self._is_input(path, seen):
                files[path] = self._digest(path, seen)
        named = {name: digest for name, (digest, _) in modules.items()}
        missing = dict.fromkeys(seen.missing, ABSENT)
        return {
            "modules": dict(sorted((missing | named).items())),
            "files": {path_from(self.root, path): digest for path, digest in sorted(files.items())},
            "folders": {path_from(self.root, path): digest for path, digest in sorted(seen.listed.items())},
            "globs": {path_from(self.root, pattern): digest for pattern, digest in sorted(seen.globs.items())},
            "libraries": self._libraries(),
        }

    def _modules(self, seen: _Seen) -> tuple[dict[str, tuple[str, Path]], dict[str, str]]:
        """Return the user's modules that were imported: by name where that finds them, else by their files."""
        named: dict[str, tuple[str, Path]] = {}
        files = {path: self._source(path, seen) for path in seen.sources}
        for name, module in list(sys.modules.items()):
            file = _file_of(module)
            if file is None or not self._counts(str(file)):
                continue
            digest = self._source(str(file), seen)
            if source_file(name, self.root) == file:
                named[name] = (digest, file)
                files.pop(str(file), None)
            else:
                files[str(file)] = digest
        return named, files

    def _source(self, path: str, seen: _Seen) -> str:
        if path in seen.sources and seen.sources[path] != state_of(path):
            return UNSTABLE
        return self.digests.file(Path(path))

    def _is_input(self, path: str, seen: _Seen) -> bool:
        """Whether a file decides the result: it was read, not only written, and the step did not just make it."""
        exists = Path(path).exists()
        if exists and not is_regular(path):
            return False
        is_made = path in seen.first and seen.first[path] is None
        if is_made and exists and self._is_temporary(path):
            return False
        return path not in seen.written or (path in seen.opened and (exists or not is_made))

    def _is_temporary(self, path: str) -> bool:
        return Path(path).is_relative_to(tempfile.gettempdir()) and not Path(path).is_relative_to(self.root)

    def _digest(self, path: str, seen: _Seen) -> str:
        if path in seen.first and path not in seen.written and seen.first[path] != state_of(path):
            return UNSTABLE
        return self.digests.content(Path(path)) if path in seen.opened else self.digests.file(Path(path))

    def _named_in(self, modules: Mapping[str, tuple[str, Path]]) -> Iterator[str]:
        """Yield files that texts in the user's sources name, alone or in a folder that another text names."""
        for _, file in modules.values():
            texts = strings_of(file) if file.suffix == ".py" else frozenset()
            bases = (Path.cwd(), self.root, file.parent)
            folders = [base / text for base in bases for text in texts if _is_folder(base / text)]
            for text in texts:
                for folder in (*bases, *folders):
                    with suppress(OSError, ValueError):
                        if (folder / text).is_file():
                            yield os.path.abspath(folder / text)  # noqa: PTH100 - links are followed later

    def _libraries(self) -> dict[str, str]:
        """Return the versions of the libraries that the step loaded."""
        found: dict[str, str] = {}
        known = set(self._loaded)
        for name, module in sorted(sys.modules.items()):
            top, file = name.partition(".")[0], _file_of(module)
            if top not in known and file is not None and is_installed(file):
                known.add(top)
                found |= versions_of_module(name)
        return found

    def _counts(self, path: str) -> bool:
        """Whether a path is the user's: not ours, not the system's, not an installed library's."""
        if is_installed(Path(path)):  # as most are: it remembers them
            return False
        real = Path(os.path.realpath(path))
        if any(real.is_relative_to(folder) for folder in self.ignored):
            return False
        is_users = real.is_relative_to(self.root) or real.is_relative_to(SHARED_MEMORY)
        if not is_users and any(real.is_relative_to(folder) for folder in SYSTEM):
            return False
        return "__pycache__" not in real.parts and not is_installed(real)


def read_log(log: Path) -> _Seen:
    """Return what a log says; a last line that a kill cut off is left out."""
    seen = _Seen()
    for line in log.read_text(errors="surrogateescape").splitlines():
        with suppress(ValueError):
            kind, path, state = json.loads(line)
            state = tuple(state) if isinstance(state, list) else state
            getattr(seen, kind).setdefault(path, state)
            if kind in ("opened", "sources", "asked", "written"):
                seen.first.setdefault(path, state)
    return seen


def is_stale(log: Path) -> bool:
    """Whether a file that a killed step had used has changed since: what it kept to resume from is of no use then."""
    if not log.exists():
        return False
    seen = read_log(log)
    ours = str(log.parent) + os.sep  # what the step kept there, and looks at again
    used = {*seen.opened, *seen.sources, *seen.asked} - seen.written.keys()
    return any(seen.first[path] != state_of(path) for path in used if not path.startswith(ours))


def find_changed(used: Mapping[str, Mapping[str, str]], root: Path, digests: Digests) -> str:
    """Return the first thing that differs from a record, in words: ``source net.py``; empty where nothing does."""
    for name, digest in used.get("modules", {}).items():
        file = source_file(name, root)
        if (digests.file(file) if file else ABSENT) != digest:
            return f"source {path_from(root, str(file)) if file else name}"
    for name, digest in used.get("files", {}).items():
        path = root / name
        is_added = digest == ABSENT and path.exists()  # a folder has no digest
        if is_added or digest not in (digests.file(path), digests.content(path)):
            return f"{'source' if name.endswith('.py') else 'file'} {name}"
    for name, digest in used.get("folders", {}).items():
        if digests.listing(root / name) != digest:
            return f"folder {name}"
    for pattern, digest in used.get("globs", {}).items():
        if digests.matches(str(root / pattern)) != digest:
            return f"the files {pattern}"
    for name, version in used.get("libraries", {}).items():
        if versions(name)[name] != version:
            return f"library {name}"
    return ""


def _note_open(recorder: Recorder, arguments: tuple[Any, ...], frame: FrameType) -> None:
    path, mode, flags = arguments
    if isinstance(path, int) or (mode is None and _is_in(frame, WALKS_TREES)):
        return
    name = _absolute(path)
    if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
        recorder.note("written", name)
    if flags & os.O_WRONLY:
        return
    if name.endswith(".pyc"):
        try:
            recorder.note("sources", importlib.util.source_from_cache(name))
        except (ValueError, NotImplementedError):  # compiled code without its source
            recorder.note("opened", name)
    elif name.endswith(".py") and _is_in(frame, READS_SOURCES):
        recorder.note("sources", name)
    else:
        recorder.note("opened", name)


def _note_listing(recorder: Recorder, arguments: tuple[Any, ...], frame: FrameType) -> None:
    path = os.getcwd() if arguments[0] is None else arguments[0]  # noqa: PTH109 - compared as text
    if not isinstance(path, int) and not _is_in(frame, LISTS_MODULES) and not _is_globbing(frame):
        recorder.note("listed", _absolute(path))


def _note_glob(recorder: Recorder, arguments: tuple[Any, ...], frame: FrameType) -> None:
    del frame
    pattern, _, folder, _ = arguments
    recorder.note("globs", _absolute(os.path.join(folder or "", pattern)))  # noqa: PTH118 - a pattern is not a path


def _note_database(recorder: Recorder, arguments: tuple[Any, ...], frame: FrameType) -> None:
    del frame
    name = os.fsdecode(arguments[0])
    recorder.note("opened", _absolute(unquote(urlsplit(name).path) if name.startswith("file:") else name))


def _note_process(recorder: Recorder, arguments: tuple[Any, ...], frame: FrameType) -> None:
    del frame
    _, command, folder, _ = arguments
    _note_named(recorder, [command] if isinstance(command, str | bytes) else command, folder)


def _note_named(recorder: Recorder, arguments: Iterable[Any], folder: Any) -> None:
    """Another program's arguments that name a file count as opened by it."""
    for argument in map(os.fsdecode, arguments):
        for word in {argument, *WORDS.findall(argument)}:
            path = _absolute(Path(folder or ".", word))
            if is_regular(path):
                recorder.note("opened", path)


_EVENTS: dict[str, Callable[[Recorder, tuple[Any, ...], FrameType], None]] = {
    "open": _note_open,
    "os.listdir": _note_listing,
    "os.scandir": _note_listing,
    "os.rename": lambda recorder, arguments, _: recorder.note("written", _absolute(arguments[1])),
    "os.system": lambda recorder, arguments, _: _note_named(recorder, arguments, None),
    "glob.glob/2": _note_glob,
    "pathlib.Path.glob": lambda recorder, arguments, _: recorder.note("globs", _absolute(Path(*arguments))),
    "pathlib.Path.rglob": lambda recorder, arguments, _: recorder.note(
        "globs", _absolute(Path(arguments[0], "**", arguments[1]))
    ),
    "sqlite3.connect": _note_database,
    "subprocess.Popen": _note_process,
}


class _Missing:
    """The last finder of modules: what gets here isn't found."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def find_spec(self, name: str, path: Iterable[str] | None = None, target: object = None) -> None:
        """Note the name, and find nothing."""
        del target
        if name.partition(".")[0] in sys.stdlib_module_names:  # of another system
            return
        with suppress(Exception):  # the recorder must never break the user's code
            if path is None or not is_installed(Path(next(iter(path), ""))):
                self.recorder.note("missing", name)


def _watch_stat(recorder: Recorder) -> None:
    """Have a path count as used whose absence is seen by ``os.stat``, as ``exists`` and ``is_file`` do."""
    stat = os.stat

    def watched(path: Any, *arguments: Any, **named: Any) -> os.stat_result:
        try:
            return stat(path, *arguments, **named)
        except FileNotFoundError:
            with suppress(Exception):
                if not isinstance(path, int) and named.get("dir_fd") is None:
                    recorder.note("asked", _absolute(path))
            raise

    for functions in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
        if stat in functions:
            functions.add(watched)
    os.stat = watched


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def glob_root(pattern: str) -> str:
    """Return the folder that a pattern's matches are in, as far as it has no wildcard."""
    parts = Path(pattern).parts
    wild = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return str(Path(*parts[:wild]))


def _absolute(path: Any) -> str:
    return os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - links are followed later


def _is_in(frame: FrameType, files: tuple[str, ...]) -> bool:
    return any(part in frame.f_code.co_filename for part in files)


def _is_globbing(frame: FrameType) -> bool:
    """Whether a listing is a part of ``Path.glob``, whose pattern is recorded; before 3.13 it is in ``pathlib``."""
    caller = frame.f_back
    is_pathlib = frame.f_code.co_filename.endswith("/pathlib.py") and frame.f_code.co_name == "_scandir"
    return is_pathlib and caller is not None and caller.f_code.co_name != "walk"


def _file_of(module: ModuleType | None) -> Path | None:
    """Return the file that a module is from; None for built-in and namespace modules, and for what isn't a module."""
    file = getattr(module, "__file__", None)
    return Path(file) if isinstance(file, str) else None
