"""Writing to disk: what survives a power cut, what other processes see, and what to do where the system refuses."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploycheck.errors import DeploycheckError


class StoreError(DeploycheckError):
    """The store can't be read or written: the disk is full, say, or a permission is missing."""


def flush(path: Path) -> None:
    """Have the system write a file or folder to disk, so that it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """Flush every file under a folder, and the folders that name them."""
    for inner, _, names in os.walk(folder, topdown=False):
        for name in names:
            flush(Path(inner) / name)
        flush(Path(inner))


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file, and its folder where there is none, so that other processes see all of the content or none of it.

    It may not survive a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    partial.replace(path)


_HINTS = {
    errno.ENOSPC: "the disk is full: free some space and run again; nothing half-written was kept",
    errno.EDQUOT: "your quota is used up: free some space and run again; nothing half-written was kept",
    errno.EFBIG: "the size of files is limited (ulimit -f): raise that limit",
    errno.EROFS: "the file system is read-only: choose a folder that can be written",
    errno.EACCES: "you may not write there: choose a folder that you may write",
    errno.EPERM: "you may not write there: choose a folder that you may write",
    errno.ENOTDIR: "there is a file where a folder is needed: move it away, or choose another folder",
    errno.EEXIST: "there is a file where a folder is needed: move it away, or choose another folder",
    errno.EIO: "the disk has failed: see the system's log",
}


def hint_for(code: int) -> str:
    """Return what to do about a refused write, by its ``errno``; empty where that isn't known."""
    return _HINTS.get(code, "")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write under ``path`` into a ``StoreError`` that says what to do.

    An error that names a file elsewhere passes through.
    """
    try:
        yield
    except OSError as error:
        named = [Path(name) for name in (error.filename, error.filename2) if isinstance(name, str)] or [path]
        ours = [name for name in named if name.absolute().is_relative_to(path.absolute())]
        hint = hint_for(error.errno or 0)
        if not hint or not ours:
            raise
        raise StoreError(f"can't be written: {error.strerror}", where=str(ours[0]), hint=hint) from error
