"""``pytest --deploycheck specs/``: the gate as a plugin of pytest."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploycheck.plugin.deployment import deployment
from deploycheck.runner.cache import CACHE

__all__ = ["deployment", "pytest_addhooks", "pytest_addoption", "pytest_configure"]

MARKERS = {
    "data": "checks of a spec's data",
    "optimize": "checks of a search for settings",
    "train": "checks of a trained model",
    "compress": "checks of a compressed variant",
    "serve": "checks of a served variant",
    "deploycheck(spec, variant): the spec and the variant that the `deployment` fixture gives": "",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the command line's options."""
    group = parser.getgroup("deploycheck", "deployment standards as checks")
    group.addoption("--deploycheck", action="store_true", help="collect the specs (YAML) among the paths given")
    group.addoption(
        "--deploycheck-promote",
        action="store_true",
        help="promote the model of each spec whose checks all passed",
    )
    group.addoption(
        "--deploycheck-fresh",
        action="store_true",
        help="load the data and compute the outputs again, so that `deploycheck promote` accepts the evidence; "
        "--deploycheck-promote does so always",
    )
    group.addoption(
        "--deploycheck-evidence",
        action="append",
        default=[],
        type=Path,
        metavar="PATH",
        help="write the evidence to PATH, in the form its suffix names (.json, .md); may be repeated "
        f"(default: {CACHE}/evidence.json)",
    )
    group.addoption(
        "--deploycheck-cache",
        type=Path,
        metavar="DIR",
        help=f"where artifacts and the default registry are kept (default: {CACHE} under the root directory)",
    )


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hook by which plugins add words to specs."""
    from deploycheck import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    """Turn the gate on, if the command line asks for it."""
    for name, text in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {text}" if text else name)
    if config.getoption("deploycheck_promote") and not config.getoption("deploycheck"):
        raise pytest.UsageError("--deploycheck-promote needs --deploycheck")
    if config.getoption("deploycheck_promote") and config.getoption("collectonly"):
        raise pytest.UsageError(
            "--deploycheck-promote can't be used with --collect-only, which runs no check: leave one out"
        )
    if config.getoption("deploycheck"):
        from deploycheck import builtin
        from deploycheck.plugin.gate import Gate
        from deploycheck.runner.installed import load_entry_points

        load_entry_points(config)
        parts: dict[str, object] = {"deploycheck-builtin": builtin, "deploycheck-gate": Gate(config)}
        for name, part in parts.items():
            if config.pluginmanager.register(part, name) is None:
                raise pytest.UsageError(f"--deploycheck needs the plugin {name}: leave out -p no:{name}")
