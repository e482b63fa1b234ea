"""The one exception family: every message says where, what, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class DeploycheckError(Exception):
    """Something a user can act on.

    ``what`` is what was expected and what was found, ``where`` a file, a place in a spec or a stage,
    ``hint`` the next thing to do.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n  hint: {self.hint}" if self.hint else head


@contextmanager
def needing_extra(what: str, extra: str) -> Iterator[None]:
    """Say what to install where an import within the block finds a library missing that ``what`` needs."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise DeploycheckError(f"{what} needs {error.name}", hint=f"pip install 'deploycheck[{extra}]'") from error


@contextmanager
def located(where: str) -> Iterator[None]:
    """Give errors raised within the block their place, where they have none yet."""
    try:
        yield
    except DeploycheckError as error:
        error.where = error.where or where
        raise
