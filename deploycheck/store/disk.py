"""Writes that last, and what to say where the system refuses them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploycheck.errors import DeploycheckError


class StoreError(DeploycheckError):
    """The store can't be read or written: a full disk, a missing right."""


def flush(path: Path) -> None:
    """Have the system write a file or folder to disk, so that a power cut can't take it back."""
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


_HINTS = {
    errno.ENOSPC: "the disk is full: free some space and run again; nothing half-written was kept",
    errno.EDQUOT: "your quota is used up: free some space and run again; nothing half-written was kept",
    errno.EFBIG: "a limit on file sizes stands in the way (ulimit -f)",
    errno.EROFS: "the file system is read-only: choose a folder that can be written",
    errno.EACCES: "there is no right to write there: choose a folder that can be written",
    errno.EPERM: "there is no right to write there: choose a folder that can be written",
    errno.ENOTDIR: "a file stands where a folder is needed: move it away, or choose another folder",
    errno.EEXIST: "a file stands where a folder is needed: move it away, or choose another folder",
    errno.EIO: "the disk fails: look at the system's log",
}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write under ``path`` into a ``StoreError`` that says what to do.

    An error that names a file elsewhere is someone else's, and left alone.
    """
    try:
        yield
    except OSError as error:
        named = [Path(name) for name in (error.filename, error.filename2) if isinstance(name, str)] or [path]
        ours = [name for name in named if name.absolute().is_relative_to(path.absolute())]
        if error.errno not in _HINTS or not ours:
            raise
        raise StoreError(f"can't be written: {error.strerror}", where=str(ours[0]), hint=_HINTS[error.errno]) from error
