"""Libraries that are imported when they are first used, so that collecting specs stays light.

``from deploycheck.lazy import np`` is the one way to have numpy in a module that collection reaches. Type checkers
see the real module. jax, flax, optax, orbax and qwix are imported inside the functions that need them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

    import numpy as np
else:
    import lazy_loader

    np = lazy_loader.load("numpy")
    sqlite3 = lazy_loader.load("sqlite3")

__all__ = ["np", "sqlite3"]
