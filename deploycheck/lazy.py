"""Libraries that are imported when they are first used, so that collecting specs stays light.

``from deploycheck.lazy import np`` is the one way to have numpy in a module that collection reaches. Type checkers
see the real module. jax, flax, optax, orbax and qwix are imported inside the functions that need them.

Each library has a proxy, which isn't in ``sys.modules``. docs/decisions/0012-lazy-imports.md says why it isn't
``importlib.util.LazyLoader``.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any


class _Lazy(ModuleType):
    """A proxy for a module, which is imported when an attribute is first used."""

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
