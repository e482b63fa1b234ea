"""Libraries that are imported when they are first used, so that collecting specs stays light.

``from deploycheck.lazy import np`` is the one way to have numpy in a module that collection reaches. Type checkers
see the real module. jax, flax, optax, orbax and qwix are imported inside the functions that need them.

A proxy stands for each library, outside of ``sys.modules``; why it isn't ``importlib.util.LazyLoader`` is in
docs/decisions/0012-lazy-imports.md.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any


class _Lazy(ModuleType):
    """Stands for a module, which is imported at the first use of an attribute."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


if TYPE_CHECKING:
    import sqlite3

    import griffe
    import numpy as np
else:
    griffe = _Lazy("griffe")
    np = _Lazy("numpy")
    sqlite3 = _Lazy("sqlite3")

__all__ = ["griffe", "np", "sqlite3"]
