"""``deploycheck promote``: promote what a run's evidence says is promotable."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from deploycheck.cli.options import add_cache
from deploycheck.errors import DeploycheckError

if TYPE_CHECKING:
    from deploycheck.cli.options import Commands
    from deploycheck.cli.project import Project
    from deploycheck.evidence import Evidence


def add(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser("promote", help="promote what the evidence of a run says is promotable")
    parser.add_argument("evidence", type=Path, help="the JSON file that --deploycheck-evidence wrote")
    add_cache(parser)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Promote; return 1 where a spec that has a target was withheld, with each reason printed."""
    from deploycheck.cli.project import with_project

    evidence = _read(parsed.evidence)
    if not any(spec.target for spec in evidence.specs):
        hint = "add to the spec: promote: {model: NAME, to: ALIAS}"
        raise DeploycheckError("no spec of that run has a `promote`", where=str(parsed.evidence), hint=hint)
    return with_project([], lambda project: _promote(evidence, project), cache=parsed.cache)


def _promote(evidence: Evidence, project: Project) -> int:
    from deploycheck.cli.output import say, say_error
    from deploycheck.evidence.sentences import conclusion
    from deploycheck.promotion import Decision
    from deploycheck.runner.conclude import promote_recorded

    moved, problems = promote_recorded(evidence, project.cache, project.extensions)
    for spec in moved.specs:
        say("\n".join([spec.id, *(f"  {line}" for line in conclusion(spec))]))
    for problem in problems:
        say_error(problem)
    done = all(spec.decision is Decision.PROMOTED for spec in moved.specs if spec.target)
    return 0 if done and not problems else 1


def _read(file: Path) -> Evidence:
    from pydantic import ValidationError

    from deploycheck.evidence import Evidence

    try:
        return Evidence.model_validate_json(file.read_bytes())
    except OSError as error:
        raise DeploycheckError(f"can't be read: {error.strerror}", where=str(file)) from error
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        what = f"is not the evidence of a run: {f'{at}: ' if at else ''}{first['msg']}"
        hint = "give the JSON file that --deploycheck-evidence wrote, with the same version of deploycheck"
        raise DeploycheckError(what, where=str(file), hint=hint) from error
