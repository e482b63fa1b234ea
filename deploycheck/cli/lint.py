"""``deploycheck lint``: find thresholds that can't be decided, and variants that can't be made, before a training."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deploycheck.cli.options import add_cache
from deploycheck.errors import DeploycheckError

if TYPE_CHECKING:
    from deploycheck.cli.options import Commands
    from deploycheck.cli.project import Project


def add(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser("lint", help="find thresholds that can't be decided, and variants that can't be made")
    parser.add_argument("specs", type=Path, nargs="+", metavar="SPEC", help="spec files, or folders of them")
    add_cache(parser)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Print what is wrong with the specs; return 1 where any is an error."""
    from deploycheck.cli.project import with_project

    files = _spec_files(parsed.specs)
    # Pytest is started for the files, not the folders: it loads the conftest.py beside each of them.
    return with_project(files, lambda project: _lint(files, parsed.specs, project), cache=parsed.cache)


def _spec_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files given, and the files in the folders given that say that they are specs."""
    from deploycheck.language import SUFFIXES, Recognition, recognize_file

    found = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        found += [file for file in files if recognize_file(file) is Recognition.SPEC]
    if not found:
        raise DeploycheckError("there is no spec", where=", ".join(map(str, paths)))
    return found


def _lint(files: Sequence[Path], paths: Sequence[Path], project: Project) -> int:
    from deploycheck.cli.output import say
    from deploycheck.language import SpecErrors
    from deploycheck.runner.lint import lint, misfits, stalls
    from deploycheck.runner.noise import floors_of
    from deploycheck.stages import data
    from deploycheck.steps.data import DATA

    counts = Counter[str]()
    not_loaded = []
    with project.runner() as runner:
        for file in files:
            try:
                plans = project.plans(file)
            except SpecErrors as error:
                say(str(error))
                counts["error"] += len(error.errors)
                continue
            for plan in plans:
                found = runner.find(plan, DATA)
                dataset = data.read(found.path) if found else None
                not_loaded += [] if found else [plan.id]
                findings = lint(plan, project.extensions, dataset, floors_of(plan, project.cache))
                unfit = misfits(plan, runner) if found else ()
                for finding in (*findings, *unfit, *stalls(plan, project.extensions)):
                    say(f"{finding.severity}: {finding.error}")
                    counts[finding.severity] += 1
    if not_loaded:
        command = f"pytest --deploycheck -m data {' '.join(map(str, paths))}"
        unknown = "the size of the test set and the shapes of the variants aren't known"
        say(f"not loaded yet, so {unknown}: {', '.join(not_loaded)}\n  {command}")
    say(", ".join(f"{counts[kind]} {kind}{'' if counts[kind] == 1 else 's'}" for kind in ("error", "warning")))
    return 1 if counts["error"] else 0
