"""The project as pytest sees it, so that subcommands find the same extensions and modules as the gate."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploycheck.cli.output import say_progress
from deploycheck.errors import DeploycheckError
from deploycheck.extensions import Extensions
from deploycheck.language import load
from deploycheck.plan import Plan, make_plans
from deploycheck.runner.cache import cache_of
from deploycheck.runner.execute import Runner
from deploycheck.runner.installed import extensions_of

PYTEST_FAILED = 2


@dataclass(frozen=True)
class Project:
    """A project: the folder of its cache, and its root folder with what plugins and ``conftest.py`` files add."""

    cache: Path
    extensions: Extensions

    @contextmanager
    def runner(self) -> Iterator[Runner]:
        """Give a runner for this project, which prints its progress, and close it at the end."""
        runner = Runner(self.cache, uuid.uuid4().hex, self.extensions, say_progress)
        try:
            yield runner
        finally:
            runner.close()

    @property
    def root(self) -> Path:
        """The project's folder."""
        return self.extensions.root

    def plans(self, file: Path) -> list[Plan]:
        """Return the plans of a spec file; raise ``SpecErrors`` for its mistakes."""
        path, root = file.resolve(), self.root.resolve()
        if not path.is_relative_to(root):
            hint = f"run the command in the project of the spec, such as {path.parent}"
            raise DeploycheckError(f"is outside of the project {root}", where=str(file), hint=hint)
        specs = load(path, self.root, self.extensions.vocabulary)
        file_id = path.relative_to(root).as_posix()
        return make_plans(specs, file_id, self.extensions)


def with_project(paths: Sequence[Path], use: Callable[[Project], int], *, cache: Path | None = None) -> int:
    """Return the exit code of ``use``, called with the project when pytest has started as it would for ``paths``.

    Pytest reads its configuration (``pythonpath``, ``addopts``), loads the installed plugins and the ``conftest.py``
    files of the paths (none given: of the default ones), and runs no tests. Raises what ``use`` raises. Returns 2
    where pytest can't start, which pytest itself explains on standard error.
    """
    command = _Command(use)
    # Assertions are not rewritten: no test runs, and pytest would warn that this package is imported already.
    options = ["--deploycheck", "--assert=plain", "--capture=no"]
    if cache is not None:
        options.append(f"--deploycheck-cache={cache.absolute()}")
    pytest.main([*options, *map(str, paths)], plugins=[command])
    return PYTEST_FAILED if command.code is None else command.code


class _Command:
    """A plugin that uses the project in place of running tests; ``code`` is None until it has."""

    def __init__(self, use: Callable[[Project], int]) -> None:
        self.use = use
        self.code: int | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> int:
        config._do_configure()  # as each of pytest's own implementations of this hook does
        self.code = self.use(Project(cache_of(config), extensions_of(config)))
        return self.code
