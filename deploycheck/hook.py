"""Extension objects from the files that declare them, for processes in which pytest isn't running.

A file is an installed plugin's module or a project's ``conftest.py``. Its function ``pytest_deploycheck_extensions()``
returns what it declares.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from deploycheck.errors import DeploycheckError

HOOK = "pytest_deploycheck_extensions"


def objects_of(files: Iterable[Path]) -> list[Any]:
    """Import each file and return the extension objects that it declares, in order.

    Raises ``DeploycheckError`` where a file can't be imported, or has no such function.
    """
    return [found for file in files for found in _objects(file)]


def _objects(file: Path) -> Sequence[Any]:
    try:
        return list(getattr(_module(file), HOOK)())
    except DeploycheckError:
        raise
    except Exception as error:  # importing runs the user's code, which may raise anything
        what = f"its extensions can't be loaded: {type(error).__name__}: {error}"
        raise DeploycheckError(what, where=str(file)) from error


def _module(file: Path) -> ModuleType:
    """Import a file: by its name where it is in a package, whose other modules it may import; else by itself.

    As with pytest, it can import what is beside it, or beside its package; here the standard library comes first.
    """
    beside, names = _place(file)
    if str(beside) not in sys.path:
        sys.path.append(str(beside))
    if len(names) > 1:
        return importlib.import_module(".".join(names))
    name = f"deploycheck_extension_{hashlib.sha256(str(file).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise DeploycheckError("is not a Python file", where=str(file))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _place(file: Path) -> tuple[Path, list[str]]:
    """Return the folder from which a module is imported, and its packages' names and its own."""
    folder, names = file.parent, [file.stem]
    while (folder / "__init__.py").exists():
        names.insert(0, folder.name)
        folder = folder.parent
    return folder, names
