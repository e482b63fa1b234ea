"""What pytest has loaded that adds to what specs can name: installed plugins and ``conftest.py`` files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from deploycheck import builtin
from deploycheck.errors import DeploycheckError
from deploycheck.extensions import Extensions, collect
from deploycheck.hook import objects_of

if TYPE_CHECKING:
    import pytest

ENTRY_POINTS = "deploycheck"
"""The group of entry points that are loaded only for their extensions, and only when the gate is on."""


def load_entry_points(config: pytest.Config) -> None:
    """Load the plugins that declare an entry point of that group."""
    config.pluginmanager.load_setuptools_entrypoints(ENTRY_POINTS)


def extensions_of(config: pytest.Config) -> Extensions:
    """Return the extensions that are built in and those of every plugin that pytest has loaded."""
    return collect(_declared(config), config.rootpath)


def extensions_from(files: Iterable[Path], root: Path) -> Extensions:
    """Return the extensions that are built in and those that files declare, where pytest isn't running."""
    built_in = builtin.pytest_deploycheck_extensions()
    return collect([(None, built_in), *((file, objects_of([file])) for file in files)], root)


def _declared(config: pytest.Config) -> Iterator[tuple[Path | None, Sequence[Any]]]:
    for implementation in config.hook.pytest_deploycheck_extensions.get_hookimpls():
        plugin = implementation.plugin
        yield (None if plugin is builtin else _file_of(plugin)), _call(implementation.function)


def _call(function: Callable[..., Any]) -> Sequence[Any]:
    objects: Sequence[Any] = function()
    return objects


def _file_of(plugin: object) -> Path:
    """Return the file that declares a plugin's extensions: other processes load them from it."""
    file = getattr(plugin, "__file__", None)
    if not isinstance(plugin, ModuleType) or file is None:
        what = f"the plugin {plugin!r} adds extensions, and isn't a module"
        raise DeploycheckError(what, hint="declare them in a module or a conftest.py, which other processes can load")
    return Path(file)
